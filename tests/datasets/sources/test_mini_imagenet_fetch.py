"""mini-ImageNet from a hub-shaped server on this machine that behaves well, breaks off, lies or refuses."""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from local_server import Site, serve
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.__main__ import main
from ckfr_helpers.datasets.sources.mini_imagenet import REPO, find_place
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.runtime import CkfrError

pa = pytest.importorskip("pyarrow", reason="reading the hub's shards needs pyarrow: the extra `hub`")
pq = pytest.importorskip("pyarrow.parquet", reason="reading the hub's shards needs pyarrow: the extra `hub`")
pytest.importorskip("huggingface_hub", reason="the extra `hub`")

COMMIT = "1234567890abcdef1234567890abcdef12345678"
NAMES = ["n01532829", "n01855672", "n01930112", "n03400231"]  # in the hub's label order


def jpeg(number: int) -> bytes:
    """A picture of one colour that tells its number, 8 × 8."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 251, number // 251 % 251, 7)).save(buffer, "JPEG")
    return buffer.getvalue()


def shard(pictures: list[bytes], labels: list[int]) -> bytes:
    """A parquet file as the ``datasets`` library writes it."""
    images = [{"bytes": data, "path": f"{number}.JPEG"} for number, data in enumerate(pictures)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels)})
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": NAMES}}}}
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
    siblings: list[dict] = [{"rfilename": "README.md", "size": 3, "blobId": "0" * 40}]
    tree: list[dict] = []  # the same list, as the later clients ask for it
    for path, content in files.items():
        lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        siblings.append({"rfilename": path, "size": len(content), "blobId": "0" * 40, "lfs": lfs})
        tree.append({"type": "file", "path": path, "size": len(content), "oid": "0" * 40})
        tree[-1]["lfs"] = {**lfs, "oid": lfs["sha256"]}
        site.files[f"/cdn/{path}"] = content
        site.redirects[f"/datasets/{repo}/resolve/{COMMIT}/{path}"] = f"/cdn/{path}"
    site.files[f"/api/datasets/{repo}/tree/{COMMIT}"] = json.dumps(tree).encode()
    about = {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
    site.files[f"/api/datasets/{repo}/revision/{revision}"] = json.dumps(about).encode()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(wordnet, "class_list", lambda _: tuple(NAMES))
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        yield site


def fetch(root: Path, **options: str) -> Path:
    return datasets.fetch("mini-imagenet", root=root, **options)


def downloads(site: Site) -> list[str]:
    return [path.removeprefix("/cdn/data/")[:11] for path in site.asked if path.startswith("/cdn/")]


def test_a_good_hub_gives_class_folders(site, shards, tmp_path):
    publish(site, shards)
    folder = fetch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mini-imagenet"]  # no scratch, no lock
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert sorted(set(downloads(site))) == ["train-00000", "train-00001", "train-00002", "validation-"]

    # Every picture, byte for byte, under its class, train before validation.
    expected: dict[str, list[bytes]] = {name: [] for name in NAMES}
    for path in sorted(shards, key=lambda path: ("validation" in path, path)):
        if "test-" not in path:
            table = pq.read_table(io.BytesIO(shards[path])).to_pydict()
            for picture, label in zip(table["image"], table["label"], strict=True):
                expected[NAMES[label]].append(picture["bytes"])
    for wnid in NAMES:
        files = sorted((folder / wnid).iterdir())
        assert all(len(file.name) == len("n0153282900000005.jpg") for file in files)
        assert [file.read_bytes() for file in files] == expected[wnid]
    sizes = [len(datasets.open_source("mini-imagenet", split, root=tmp_path)) for split in ("train", "test")]
    assert sizes == [4 * 432, 4 * 120]

    site.asked.clear()
    assert fetch(tmp_path) == folder
    assert site.asked == []


@pytest.mark.parametrize("fault", ["corrupt", "missing"])
def test_a_late_failure_costs_no_download(site, shards, tmp_path, fault):
    """The last shard is damaged or gone: nothing looks whole, and only that shard is asked for again."""
    publish(site, shards)
    site.faults["/cdn/data/validation-00000-of-00001.parquet"] = fault
    message = {"corrupt": r"validation-00000\S* is no parquet file", "missing": "404"}[fault]
    with pytest.raises(CkfrError, match=message):
        fetch(tmp_path)
    assert find_place(tmp_path) is None
    site.faults.clear()
    site.asked.clear()
    fetch(tmp_path)
    assert set(downloads(site)) == {"validation-"}
    assert len(datasets.open_source("mini-imagenet", "test", root=tmp_path)) == 480


def test_what_is_not_there_is_said_to_be_missing(site, shards, tmp_path, monkeypatch):
    with pytest.raises(CkfrError, match=r"timm/mini-imagenet at main cannot be had: .*404"):
        fetch(tmp_path)
    publish(site, shards)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(CkfrError, match="cannot be had"):
        fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_takes_another_copy(site, shards, tmp_path, capsys):
    publish(site, shards, repo="someone/mini", revision="v1")
    assert main(["fetch", "mini-imagenet", "--from", "someone/mini@v1", "--root", str(tmp_path)]) == 0
    assert f"mini-imagenet is at {tmp_path / 'mini-imagenet'}" in capsys.readouterr().out
    assert main(["fetch", "mini-imagenet", "--from", "not a repo", "--root", str(tmp_path / "new")]) == 2
    assert "not a repo at main cannot be had" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (shard([jpeg(0)], [7]), "is no parquet file of pictures and labels"),
        (shard([jpeg(0)] * 4, [0, 1, 2, 3]), "has 1 pictures of class n01532829; expected 600"),
        (b"PAR1 but no more", "is no parquet file of pictures and labels"),
        (None, "has 0 pictures of class n01532829"),
    ],
)
def test_a_repository_that_is_something_else_is_named(site, tmp_path, content, message):
    publish(site, {} if content is None else {"data/train-0.parquet": content})
    with pytest.raises(CkfrError, match=message):
        fetch(tmp_path)
    assert find_place(tmp_path) is None


def test_missing_libraries_and_a_taken_folder_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(CkfrError, match=r"needs huggingface_hub and pyarrow.*pip install huggingface_hub"):
        fetch(tmp_path)
    (tmp_path / "mini-imagenet").mkdir()
    (tmp_path / "mini-imagenet" / "notes.txt").write_text("mine")
    with pytest.raises(CkfrError, match="is there already, in no layout"):
        fetch(tmp_path)
