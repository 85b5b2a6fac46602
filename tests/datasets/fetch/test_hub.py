"""mini-ImageNet from a hub-shaped server on this machine that behaves well, breaks off, lies or refuses."""

import csv
import hashlib
import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from local_server import Site, serve
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.__main__ import main
from ckfr_helpers.datasets.fetch import hub as hub
from ckfr_helpers.datasets.sources.mini_imagenet_classes import ALL_CLASSES, CLASSES_OF
from ckfr_helpers.runtime import CkfrError

pa = pytest.importorskip("pyarrow", reason="reading the hub's shards needs pyarrow: the extra `hub`")
pq = pytest.importorskip("pyarrow.parquet", reason="reading the hub's shards needs pyarrow: the extra `hub`")

REPO = hub.REPO
COMMIT = "1234567890abcdef1234567890abcdef12345678"
# Two classes of train.csv, one of val.csv, one of test.csv, in the hub's label order.
NAMES = ["n01532829", "n01855672", "n01930112", "n03400231"]
TABLES = {"train.csv": ("n01532829", "n03400231"), "val.csv": ("n01855672",), "test.csv": ("n01930112",)}


def jpeg(number: int, form: str = "JPEG") -> bytes:
    """A picture of one colour that tells its number, 8 × 8."""
    buffer = io.BytesIO()
    colour = (number % 251, number // 251 % 251, 7)
    Image.new("RGB", (8, 8), colour).save(buffer, form)
    return buffer.getvalue()


def shard(pictures: list[bytes], labels: list, names: list[str] | None = NAMES) -> bytes:
    """A parquet file as the ``datasets`` library writes it."""
    images = [{"bytes": data, "path": f"{number}.JPEG"} for number, data in enumerate(pictures)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(images, kind), "label": pa.array(labels)}
    table = pa.table(columns)
    if names is not None:
        label = {"names": names, "_type": "ClassLabel"}
        about = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=200)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shards() -> dict[str, bytes]:
    """500 and 100 pictures a class over three and one shards, and a test split that is not needed."""
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 500))
    made = {}
    for number, labels in enumerate(np.array_split(order, 3)):
        pictures = [jpeg(1000 * number + place) for place in range(len(labels))]
        made[f"data/train-{number:05}-of-00003.parquet"] = shard(pictures, labels.tolist())
    made["data/validation-00000-of-00001.parquet"] = shard(
        [jpeg(5000 + place) for place in range(400)], np.repeat(np.arange(4), 100).tolist()
    )
    made["data/test-00000-of-00001.parquet"] = shard([jpeg(9000)] * 200, np.repeat(np.arange(4), 50).tolist())
    return made


def publish(site: Site, files: dict[str, bytes], repo: str = REPO, revision: str = "main") -> None:
    """Serve a data set repository as the hub does: a list with checksums, and files behind a redirect."""
    siblings = [{"rfilename": "README.md", "size": 3, "blobId": "0" * 40}]
    for path, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        lfs = {"sha256": digest, "size": len(content), "pointerSize": 130}
        siblings.append({"rfilename": path, "size": len(content), "blobId": "0" * 40, "lfs": lfs})
        site.files[f"/cdn/{path}"] = content
        site.redirects[f"/datasets/{repo}/resolve/{COMMIT}/{path}"] = f"/cdn/{path}"
    about = {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
    site.files[f"/api/datasets/{repo}/revision/{revision}"] = json.dumps(about).encode()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(hub, "CLASSES_OF", TABLES)
    monkeypatch.setattr(hub, "ALL_CLASSES", frozenset(NAMES))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serve(chunk=2_000) as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        yield site


def fetch(root: Path, **options) -> Path:
    return datasets.fetch("mini-imagenet", root=root, progress=False, **options)


def test_the_classes_are_ravi_and_larochelles():
    assert {name: len(classes) for name, classes in CLASSES_OF.items()} == {
        "train.csv": 64,
        "val.csv": 16,
        "test.csv": 20,
    }
    assert len(ALL_CLASSES) == 100
    timm = Path(importlib.util.find_spec("timm").origin).parent  # found, not imported: that takes seconds
    listed = (timm / "data" / "_info" / "mini_imagenet_synsets.txt").read_text()
    assert set(listed.split()) == ALL_CLASSES


def test_a_good_hub_gives_the_original_layout(site, shards, tmp_path):
    publish(site, shards)
    folder = fetch(tmp_path)
    assert folder == tmp_path / "mini-imagenet"
    assert [path.name for path in tmp_path.iterdir()] == ["mini-imagenet"]  # no scratch, no lock
    assert sorted(path.name for path in folder.iterdir()) == [
        "images",
        "source.json",
        "test.csv",
        "train.csv",
        "val.csv",
    ]
    assert not any("test-" in path for path in site.paths())  # train and validation fill every class
    record = json.loads((folder / "source.json").read_text())
    assert (record["repo"], record["commit"], len(record["shards"])) == (REPO, COMMIT, 4)

    # Every picture, byte for byte, under its class, train before validation.
    expected: dict[str, list[bytes]] = {name: [] for name in NAMES}
    for path in sorted(shards, key=lambda path: ("validation" in path, path)):
        if "test-" not in path:
            table = pq.read_table(io.BytesIO(shards[path])).to_pydict()
            for picture, label in zip(table["image"], table["label"], strict=True):
                expected[NAMES[label]].append(picture["bytes"])
    for table, classes in TABLES.items():
        with open(folder / table, newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["label"] for row in rows] == [wnid for wnid in sorted(classes) for _ in range(600)]
        for wnid in classes:
            names = [row["filename"] for row in rows if row["label"] == wnid]
            assert all(len(name) == len("n0153282900000005.jpg") and name.startswith(wnid) for name in names)
            assert [(folder / "images" / name).read_bytes() for name in names] == expected[wnid]
    sizes = [len(datasets.open_source("mini-imagenet", split, root=tmp_path)) for split in ("train", "test")]
    assert sizes == [4 * 432, 4 * 120]

    site.asked.clear()
    assert fetch(tmp_path) == folder
    assert site.asked == []


def test_a_second_call_keeps_whole_shards_and_resumes_the_broken_one(site, shards, tmp_path):
    publish(site, shards)
    broken = "/cdn/data/train-00001-of-00003.parquet"
    site.faults[broken] = "dies"
    with pytest.raises(CkfrError, match=r"train-00001.*closed after 8000 of .*asking again resumes"):
        fetch(tmp_path)
    assert not (tmp_path / "mini-imagenet").exists()
    assert datasets.mini_imagenet.find_place(tmp_path) is None
    site.faults.clear()
    site.asked.clear()
    fetch(tmp_path)
    assert not any("train-00000" in path for path in site.paths())
    assert [wanted for path, wanted, _ in site.asked if path == broken] == ["bytes=8000-"]
    assert len(datasets.open_source("mini-imagenet", "test", root=tmp_path)) == 480


def test_stopping_while_pictures_are_written_loses_nothing(site, shards, tmp_path, monkeypatch):
    publish(site, shards)
    read = hub.read_shard

    def stopped(path: Path, title: str):
        for number, row in enumerate(read(path, title)):
            if "train-00002" in title and number == 300:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(hub, "read_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path)
    assert not (tmp_path / "mini-imagenet").exists()
    monkeypatch.setattr(hub, "read_shard", read)
    site.asked.clear()
    fetch(tmp_path)
    assert not any("train-" in path for path in site.paths())  # the third shard is whole on disk
    assert len(datasets.open_source("mini-imagenet", "test", root=tmp_path)) == 480


def test_a_connection_that_breaks_once_is_resumed_at_once(site, shards, tmp_path):
    publish(site, shards)
    for path in shards:
        site.faults[f"/cdn/{path}"] = "breaks"
    fetch(tmp_path)
    assert "bytes=2000-" in [wanted for _, wanted, _ in site.asked]


def test_a_shard_with_another_checksum_leaves_nothing_that_looks_whole(site, shards, tmp_path):
    publish(site, shards)
    site.faults["/cdn/data/validation-00000-of-00001.parquet"] = "corrupt"
    with pytest.raises(CkfrError, match=r"validation-00000.* its sha256 is [0-9a-f]{64}, expected"):
        fetch(tmp_path)
    assert not (tmp_path / "mini-imagenet").exists()
    assert datasets.mini_imagenet.find_place(tmp_path) is None
    assert not list(tmp_path.rglob("*.parquet*"))


def test_what_is_not_there_is_said_to_be_missing(site, shards, tmp_path):
    with pytest.raises(CkfrError, match=r"timm/mini-imagenet at main cannot be had from the hub: .*404"):
        fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []
    publish(site, shards)
    with pytest.raises(CkfrError, match=r"timm/mini-imagenet at v9 cannot be had"):
        fetch(tmp_path, revision="v9")
    site.faults["/cdn/data/train-00000-of-00003.parquet"] = "missing"
    with pytest.raises(CkfrError, match=r"train-00000.*answered 404 Not Found"):
        fetch(tmp_path)
    assert not (tmp_path / "mini-imagenet").exists()


def test_nobody_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(CkfrError, match="cannot be had from the hub"):
        fetch(tmp_path)


def test_the_login_is_shown_to_the_hub_and_to_nobody_else(site, shards, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    publish(site, shards)
    fetch(tmp_path)
    assert {sign for path, _, sign in site.asked if path.startswith("/datasets/")} == {"Bearer hf_secret"}
    assert {sign for path, _, sign in site.asked if path.startswith("/cdn/")} == {None}


def test_the_command_takes_another_copy(site, shards, tmp_path, capsys):
    publish(site, shards, repo="someone/mini", revision="v1")
    assert main(["fetch", "mini-imagenet", "--from", "someone/mini@v1", "--root", str(tmp_path)]) == 0
    assert f"mini-imagenet is at {tmp_path / 'mini-imagenet'}" in capsys.readouterr().out
    assert main(["fetch", "cifar10", "--from", "someone/mini", "--root", str(tmp_path)]) == 2
    assert "cifar10 has no such choice" in capsys.readouterr().err
    assert main(["fetch", "mini-imagenet", "--from", "not a repo", "--root", str(tmp_path / "new")]) == 2
    assert "not a repo at main cannot be had" in capsys.readouterr().err


def test_splits_by_class_are_taken_too(site, tmp_path):
    """A copy whose splits are few-shot learning's own, with labels that are strings, and a PNG among them."""
    pictures = {
        wnid: [jpeg(600 * place + number) for number in range(600)] for place, wnid in enumerate(NAMES)
    }
    pictures["n01930112"][5] = jpeg(5, "PNG")
    files = {}
    for split, table in (("train", "train.csv"), ("val", "val.csv"), ("test", "test.csv")):
        rows = [(data, wnid) for wnid in TABLES[table] for data in pictures[wnid]]
        files[f"{split}/0000.parquet"] = shard([data for data, _ in rows], [wnid for _, wnid in rows], None)
    publish(site, files)
    fetch(tmp_path)
    images = tmp_path / "mini-imagenet" / "images"
    assert len(list(images.iterdir())) == 2400
    assert all(path.read_bytes()[:3] == b"\xff\xd8\xff" for path in images.iterdir())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data/train-0.parquet": shard([jpeg(0)], [0], ["n02084071"])}, "of class n02084071, which is none"),
        (
            {"data/train-0.parquet": shard([jpeg(0)], [0], ["goose"])},
            "labels a picture 'goose'; expected a W",
        ),
        ({"data/train-0.parquet": shard([jpeg(0)], [7])}, "labels a picture 7; expected a WordNet id"),
        ({"data/train-0.parquet": shard([jpeg(0)] * 4, [0, 1, 2, 3])}, "has 1 pictures of class n01532829"),
        ({"data/train-0.parquet": shard([b"GIF8?"], [0])}, r"train-0\.parquet, row 0 cannot be decoded"),
        ({"data/train-0.parquet": b"PAR1 but no more"}, "is not a readable parquet file"),
        ({"data/pictures.zip": b"PK"}, "holds no parquet files named after train"),
    ],
)
def test_a_repository_that_is_something_else_is_named(site, tmp_path, files, message):
    publish(site, files)
    with pytest.raises(CkfrError, match=message):
        fetch(tmp_path)
    assert not (tmp_path / "mini-imagenet").exists()


def test_a_file_without_a_checksum_is_not_downloaded(site, shards, tmp_path):
    publish(site, shards)
    path = f"/api/datasets/{REPO}/revision/main"
    about = json.loads(site.files[path])
    for sibling in about["siblings"]:
        sibling.pop("lfs", None)
    site.files[path] = json.dumps(about).encode()
    with pytest.raises(CkfrError, match="gives no checksum for data/train-00000"):
        fetch(tmp_path)


def test_missing_libraries_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        CkfrError, match=r"needs huggingface_hub and pyarrow.*pip install 'ckfr-helpers\[hub\]'"
    ):
        fetch(tmp_path)


def downloads(site: Site) -> list[str]:
    return [path for path in site.paths() if path.startswith("/cdn/")]


@pytest.mark.parametrize("there", [True, False], ids=["empty", "dangling"])
def test_a_folder_that_is_a_link_is_filled_where_it_points(site, shards, tmp_path, there):
    publish(site, shards)
    root, disk = tmp_path / "data", tmp_path / "disk"
    root.mkdir()
    disk.mkdir()
    if there:
        (disk / "pictures").mkdir()
    (root / "mini-imagenet").symlink_to(disk / "pictures")
    broken = "/cdn/data/train-00001-of-00003.parquet"
    site.faults[broken] = "dies"
    with pytest.raises(CkfrError, match="asking again resumes"):
        fetch(root)
    assert (disk / ".pictures.unfinished" / "images").is_dir()  # on the disk it is meant for
    assert [path.name for path in root.iterdir()] == ["mini-imagenet"]
    site.faults.clear()
    assert fetch(root) == root / "mini-imagenet"
    assert (root / "mini-imagenet").is_symlink()
    assert [path.name for path in disk.iterdir()] == ["pictures"]
    assert not {"done", "shards"} & {path.name for path in (disk / "pictures").iterdir()}
    assert len(datasets.open_source("mini-imagenet", "test", root=root)) == 480
    site.asked.clear()
    fetch(root)
    assert site.asked == []


def test_a_place_that_cannot_be_taken_at_the_end_costs_no_download(site, shards, tmp_path, monkeypatch):
    publish(site, shards)
    folder, write = tmp_path / "mini-imagenet", hub._write_tables

    def disturbed(*arguments) -> None:
        write(*arguments)
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")

    with monkeypatch.context() as patch:
        patch.setattr(hub, "_write_tables", disturbed)
        with pytest.raises(
            CkfrError, match=r"is whole in .*unfinished, but could not be moved to .*not empty"
        ):
            fetch(tmp_path)
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    site.asked.clear()
    fetch(tmp_path)
    assert downloads(site) == []
    assert len(datasets.open_source("mini-imagenet", "test", root=tmp_path)) == 480


def test_stopping_once_the_folder_has_its_name_leaves_it_whole(site, shards, tmp_path, monkeypatch):
    publish(site, shards)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hub.shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            fetch(tmp_path)
    site.asked.clear()
    assert fetch(tmp_path) == tmp_path / "mini-imagenet"
    assert site.asked == []
    assert len(datasets.open_source("mini-imagenet", "test", root=tmp_path)) == 480


def test_a_place_that_can_never_be_taken_is_refused_before_the_download(site, shards, tmp_path, monkeypatch):
    publish(site, shards)
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(CkfrError, match="round is a link that leads back to itself; remove it"):
        hub.fetch_from_hub(tmp_path / "round", progress=False)
    (tmp_path / "round").unlink()
    (tmp_path / "mini-imagenet").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(hub.os.path, "ismount", lambda path: Path(path) == (tmp_path / "mini-imagenet"))
        with pytest.raises(CkfrError, match=r"mini-imagenet is a mount point, .* or give --root"):
            fetch(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CkfrError, match=r"could not be written to .*file/\.mini-imagenet\.unfinished \("):
        fetch(tmp_path / "file")
    assert downloads(site) == []


def test_a_disk_that_fills_up_on_the_way_is_one_sentence(site, shards, tmp_path, monkeypatch):
    publish(site, shards)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(hub.Path, "write_bytes", full)
        with pytest.raises(CkfrError, match=r"could not be written to .*No space left.* is kept"):
            fetch(tmp_path)
    site.asked.clear()
    fetch(tmp_path)
    assert not any("train-00000" in path for path in downloads(site))


def test_two_at_once_a_full_disk_and_a_taken_folder(site, shards, tmp_path, monkeypatch):
    publish(site, shards)
    with (
        FileLock(tmp_path / ".mini-imagenet.unfinished.lock"),
        pytest.raises(CkfrError, match="Another process is fetching"),
    ):
        fetch(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(hub.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
        with pytest.raises(CkfrError, match=r"has 0\.0 GB free; mini-ImageNet needs"):
            fetch(tmp_path)
    (tmp_path / "mini-imagenet").mkdir()
    (tmp_path / "mini-imagenet" / "notes.txt").write_text("mine")
    with pytest.raises(CkfrError, match="is there already but holds mini-ImageNet in no layout"):
        fetch(tmp_path)
    assert (tmp_path / "mini-imagenet" / "notes.txt").read_text() == "mine"
