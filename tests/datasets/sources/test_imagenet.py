"""ImageNet in class folders; it is explained and never downloaded."""

import io
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.__main__ import main
from ckfr_helpers.runtime import CkfrError

WNIDS = ["n02129165", "n02129604", "n03400231"]


def jpeg(size: int = 64) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def small(tmp_path) -> Path:
    """Three classes with four training and two validation pictures each."""
    for part, count in (("train", 4), ("val", 2)):
        for wnid in WNIDS:
            folder = tmp_path / "imagenet" / part / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{wnid}_{number}.JPEG").write_bytes(jpeg(20 + number))
    return tmp_path


def test_imagenet_is_explained_where_it_is_missing(tmp_path, capsys):
    assert main(["fetch", "imagenet", "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    for part in (
        str(tmp_path / "imagenet"),
        "ILSVRC2012_img_train.tar  (md5 1d675b47d978889d74fa0da5fadfb00e)",
        "ILSVRC2012_img_val.tar",
        "ILSVRC2012_devkit_t12.tar.gz",
        "from torchvision.datasets import ImageNet",
    ):
        assert part in error
    assert list(tmp_path.iterdir()) == []


def test_imagenet_reads_its_folders(small):
    assert datasets.fetch("imagenet", root=small) == small / "imagenet"
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
    refuses(f"Class '{WNIDS[2]}' is in one of train/ and val/ only")
    (small / "away").rename(place / "val" / "goose")
    refuses("Class 'goose' is in one of train/ and val/ only")
    (place / "val" / "goose").rename(place / "val" / WNIDS[2])
    for path in (place / "val" / WNIDS[0]).iterdir():
        path.unlink()
    refuses(f"{WNIDS[0]} holds no picture", "test")
