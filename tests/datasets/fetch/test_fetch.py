"""Tiny-ImageNet and CIFAR from a publisher on this machine that behaves well, breaks off, lies or refuses;
ImageNet, which is explained. What is fetched is verified, and nothing half is ever taken for whole."""

import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torchvision
from local_server import Site, serve
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.__main__ import main
from ckfr_helpers.datasets.sources import cifar, imagenet, tiny_imagenet
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.runtime import CkfrError

WNIDS = ["n02129165", "n02129604", "n03400231"]


def jpeg(size: int = 64) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def tiny_zip() -> bytes:
    """Tiny-ImageNet's zip with three classes of two training pictures and one validation picture."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for wnid in WNIDS:
            boxes = []
            for number in range(2):
                archive.writestr(f"tiny-imagenet-200/train/{wnid}/images/{wnid}_{number}.JPEG", jpeg())
                boxes.append(f"{wnid}_{number}.JPEG\t0\t0\t10\t20\n")
            archive.writestr(f"tiny-imagenet-200/train/{wnid}/{wnid}_boxes.txt", "".join(boxes))
            archive.writestr(f"tiny-imagenet-200/val/images/val_{wnid}.JPEG", jpeg())
        lines = "".join(f"val_{wnid}.JPEG\t{wnid}\t0\t0\t10\t20\n" for wnid in WNIDS)
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", lines)
        archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(WNIDS))
    return buffer.getvalue()


def cifar_tar(name: str) -> bytes:
    """The archive of CIFAR-10 or CIFAR-100 in miniature: ten training and ten test pictures a class."""
    layout = cifar.LAYOUTS[name]
    each = 10 * layout.classes
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:

        def add(file: str, content: dict[bytes, object]) -> None:
            data = pickle.dumps(content, protocol=2)
            member = tarfile.TarInfo(f"{layout.folder}/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        for files in (layout.train, layout.test):
            count = each // len(files)
            for file in files:
                pixels = np.random.default_rng(0).integers(0, 256, (count, 3072), dtype=np.uint8)
                labels = [number % layout.classes for number in range(count)]
                add(file, {b"data": pixels, layout.labels_key: labels})
        add(layout.meta, {layout.names_key: [one.encode() for one in wordnet.class_names(name)]})
    return buffer.getvalue()


class Published(NamedTuple):
    """One data set as its publisher has it."""

    content: bytes
    folder: str
    archive: str
    classes: int
    announce: Callable[[pytest.MonkeyPatch, str, str], None]


def announce_tiny(patch: pytest.MonkeyPatch, url: str, md5: str) -> None:
    patch.setattr(tiny_imagenet.fetch, "__defaults__", (None, url, md5))


def announce_cifar(kind: type) -> Callable[[pytest.MonkeyPatch, str, str], None]:
    def announce(patch: pytest.MonkeyPatch, url: str, md5: str) -> None:
        patch.setattr(kind, "url", url)
        patch.setattr(kind, "tgz_md5", md5)
        patch.setattr(cifar, "TRAIN_SIZE", 100 if kind is torchvision.datasets.CIFAR10 else 1000)
        patch.setattr(cifar, "TEST_SIZE", 100 if kind is torchvision.datasets.CIFAR10 else 1000)
        patch.setenv("PATH", "")  # no npm to turn to

    return announce


@pytest.fixture(scope="module")
def library() -> dict[str, Published]:
    ten, hundred = torchvision.datasets.CIFAR10, torchvision.datasets.CIFAR100
    return {
        "tiny-imagenet": Published(
            tiny_zip(), "tiny-imagenet-200", "tiny-imagenet-200.zip", 3, announce_tiny
        ),
        "cifar10": Published(
            cifar_tar("cifar10"), "cifar-10-batches-py", ten.filename, 10, announce_cifar(ten)
        ),
        "cifar100": Published(
            cifar_tar("cifar100"), "cifar-100-python", hundred.filename, 100, announce_cifar(hundred)
        ),
    }


@pytest.fixture(params=["tiny-imagenet", "cifar10", "cifar100"])
def name(request) -> str:
    return request.param


@pytest.fixture
def site(name, library, monkeypatch):
    published = library[name]
    with serve(chunk=3000) as site:
        site.files["/archive"] = published.content
        published.announce(monkeypatch, f"{site.url}/archive", hashlib.md5(published.content).hexdigest())
        yield site


def fetched(name: str, root: Path) -> int:
    return main(["fetch", name, "--root", str(root)])


def test_a_good_answer_is_unpacked_and_opens(name, site: Site, library, tmp_path, capsys):
    assert fetched(name, tmp_path) == 0
    assert f"{name} is at {tmp_path / library[name].folder}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [library[name].folder]
    source = datasets.open_source(name, "test", root=tmp_path)
    assert len(source.classes) == library[name].classes
    site.asked.clear()
    assert fetched(name, tmp_path) == 0
    assert site.asked == []


def test_a_truncated_answer_is_resumed_by_the_next_call(name, site, library, tmp_path, capsys):
    site.faults["/archive"] = "dies"
    assert fetched(name, tmp_path) == 2
    error = capsys.readouterr().err
    assert "closed after 12000 of" in error
    assert "12000 bytes are kept, and asking again resumes" in error
    assert [path.name for path in tmp_path.iterdir()] == [library[name].archive + ".part"]
    with pytest.raises(CkfrError, match="is not here"):
        datasets.open_source(name, "test", root=tmp_path)
    site.faults.clear()
    site.asked.clear()
    assert fetched(name, tmp_path) == 0
    assert [wanted for _, wanted, _ in site.asked] == ["bytes=12000-"]
    assert len(datasets.open_source(name, "test", root=tmp_path)) > 0


def test_a_corrupt_answer_leaves_nothing(name, site, tmp_path, capsys):
    site.faults["/archive"] = "corrupt"
    assert fetched(name, tmp_path) == 2
    assert "its md5 is" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_is_gone_is_said_to_be(name, site, tmp_path, capsys):
    site.faults["/archive"] = "missing"
    assert fetched(name, tmp_path) == 2
    assert "answered 404 Not Found; nothing was downloaded" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_stopping_while_it_unpacks_leaves_the_archive_and_no_folder(
    name, site, library, tmp_path, monkeypatch
):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ckfr_helpers.datasets.fetch.download.zipfile.ZipFile.extractall", stopped)
        patch.setattr("ckfr_helpers.datasets.fetch.download.shutil.copyfileobj", stopped)
        with pytest.raises(KeyboardInterrupt):
            datasets.fetch(name, root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [library[name].archive]
    site.asked.clear()
    datasets.fetch(name, root=tmp_path)
    assert site.asked == []  # the archive is whole: its checksum is enough
    assert [path.name for path in tmp_path.iterdir()] == [library[name].folder]


# -- ImageNet ----------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """Three classes with four training and two validation pictures each, and numbers to match."""
    monkeypatch.setattr(imagenet, "CLASSES", 3)
    monkeypatch.setattr(imagenet, "PICTURES", {"train": 12, "val": 6})
    for part, count in (("train", 4), ("val", 2)):
        for wnid in WNIDS:
            folder = tmp_path / "imagenet" / part / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{wnid}_{number}.JPEG").write_bytes(jpeg(20 + number))
    return tmp_path


def test_imagenet_is_explained_where_it_is_missing(tmp_path, capsys):
    assert fetched("imagenet", tmp_path) == 1
    error = capsys.readouterr().err
    for part in (
        str(tmp_path / "imagenet"),
        "ILSVRC2012_img_train.tar  (md5 1d675b47d978889d74fa0da5fadfb00e)",
        "ILSVRC2012_img_val.tar",
        "ILSVRC2012_devkit_t12.tar.gz",
        "1,281,167",
        "from torchvision.datasets import ImageNet",
    ):
        assert part in error
    assert list(tmp_path.iterdir()) == []


def test_a_complete_imagenet_is_said_to_be_complete(small, capsys):
    assert fetched("imagenet", small) == 0
    assert f"imagenet is at {small / 'imagenet'}" in capsys.readouterr().out
    (small / "imagenet" / "train" / WNIDS[0] / f"{WNIDS[0]}_3.JPEG").unlink()
    assert fetched("imagenet", small) == 1
    assert "train has 11 pictures of 12" in capsys.readouterr().err
    (small / "imagenet" / "val" / "notes").mkdir()
    assert fetched("imagenet", small) == 1


def test_imagenet_reads_its_folders(small):
    test = datasets.open_source("imagenet", "test", root=small)
    assert test.classes == tuple(sorted(WNIDS))
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test[1][0].shape == (3, 21, 21)
    assert set(test[1][1]) == {"label"}
    train = datasets.open_source("imagenet", "train", root=small / "imagenet", val_fraction=0.25)
    val = datasets.open_source("imagenet", "val", root=small, val_fraction=0.25)
    assert np.bincount(train.labels).tolist() == [3, 3, 3]
    assert np.bincount(val.labels).tolist() == [1, 1, 1]
    names = {f"train/{wnid}/{wnid}_{number}.JPEG" for wnid in WNIDS for number in range(4)}
    assert set(train.filenames) | set(val.filenames) == names
    theirs = torchvision.datasets.ImageFolder(small / "imagenet" / "val")
    assert [label for _, label in theirs.samples] == test.labels.tolist()
    assert len({source.fingerprint() for source in (train, val, test)}) == 3


def test_imagenets_mistakes_are_named(small):
    place = small / "imagenet"

    def refuses(message: str, split: str = "train") -> None:
        with pytest.raises(CkfrError, match=message):
            datasets.open_source("imagenet", split, root=small)

    (place / "val" / WNIDS[2]).rename(small / "away")
    refuses(f"Only one of train and val in .* has the class folder {WNIDS[2]}")
    (small / "away").rename(place / "val" / "goose")
    refuses("goose is no class folder; expected WordNet ids")
    (place / "val" / "goose").rename(place / "val" / WNIDS[2])
    (place / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(jpeg())
    refuses("holds loose pictures such as ILSVRC2012_val_00000001.JPEG")
    (place / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()
    for path in (place / "val" / WNIDS[0]).iterdir():
        path.unlink()
    refuses(f"{WNIDS[0]} holds no pictures", "test")
