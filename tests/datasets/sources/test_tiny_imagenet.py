"""Tiny-ImageNet in its own layout, as a folder, as a zip, and from a publisher on this machine."""

import hashlib
import io
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from local_server import serve
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.runtime import CkfrError

# Frying pan, lion, guitar: real WordNet ids, deliberately out of order.
WNIDS = ["n03400231", "n02129165", "n02676566"]


def jpeg(seed: int, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> bytes:
    """A small JPEG of noise, ``size`` as (width, height)."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def tiny(tmp_path) -> Path:
    """Three classes, ten training and two validation pictures each, one of them greyscale."""
    root = tmp_path / "tiny-imagenet-200"
    lines = []
    for number, wnid in enumerate(WNIDS):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        boxes = []
        for picture in range(10):
            name = f"{wnid}_{picture}.JPEG"
            (folder / name).write_bytes(jpeg(10 * number + picture, (64, 64), "L" if picture == 4 else "RGB"))
            boxes.append(f"{name}\t{picture}\t{number}\t{picture + 30}\t63\n")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(boxes))
        (root / "val" / "images").mkdir(parents=True, exist_ok=True)
        for picture in range(2):
            name = f"val_{2 * number + picture}.JPEG"
            (root / "val" / "images" / name).write_bytes(jpeg(100 + 2 * number + picture, (64, 64)))
            lines.append(f"{name}\t{wnid}\t1\t2\t{40 + picture}\t50\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(WNIDS))
    (root / "words.txt").write_text("".join(f"{wnid}\tname\n" for wnid in WNIDS))
    return root


def as_zip(root: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root.parent))
    return target


def whole(source) -> list[tuple[bytes, int, tuple[float, ...]]]:
    """A source's content, sorted, for comparing sources as sets."""
    return sorted(
        (e[0].numpy().tobytes(), e[1]["label"], tuple(e[1]["boxes"].flatten().tolist()))
        for e in source_items(source)
    )


def source_items(source):
    return (source[index] for index in range(len(source)))


def test_tiny_imagenet_reads_pictures_labels_and_boxes(tiny):
    source = datasets.open_source("tiny-imagenet", "train", root=tiny, val_fraction=0)
    assert list(source.classes) == sorted(WNIDS)
    assert len(source) == 30
    expected = []
    for number, wnid in enumerate(WNIDS):
        for picture in range(10):
            with Image.open(tiny / "train" / wnid / "images" / f"{wnid}_{picture}.JPEG") as image:
                pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            box = (float(picture), float(number), float(picture + 30), 63.0)
            expected.append((pixels.tobytes(), source.classes.index(wnid), box))
    assert whole(source) == sorted(expected)
    grey = [e for e in source_items(source) if torch.equal(e[0][0], e[0][1])]
    assert len(grey) == 3
    assert all(e[0].shape == (3, 64, 64) and e[0].dtype == torch.uint8 for e in grey)
    assert source[0][1]["boxes"].shape == (1, 4)
    assert source[0][1]["boxes"].dtype == torch.float32


def test_tiny_imagenets_official_val_is_our_test_and_our_val_comes_from_train(tiny):
    test = datasets.open_source("tiny-imagenet", "test", root=tiny)
    assert len(test) == 6
    assert (
        sorted(tuple(e[1]["boxes"][0].tolist()) for e in source_items(test))
        == [(1, 2, 40, 50)] * 3 + [(1, 2, 41, 50)] * 3
    )
    train = datasets.open_source("tiny-imagenet", "train", root=tiny, val_fraction=0.2)
    val = datasets.open_source("tiny-imagenet", "val", root=tiny, val_fraction=0.2)
    assert np.bincount(train.labels).tolist() == [8, 8, 8]
    assert np.bincount(val.labels).tolist() == [2, 2, 2]
    everything = datasets.open_source("tiny-imagenet", "train", root=tiny, val_fraction=0)
    assert sorted(whole(train) + whole(val)) == whole(everything)


def test_a_zip_reads_like_its_folder_and_is_unpacked_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CKFR_DATA", str(tmp_path / "data"))
    packed = as_zip(tiny, tmp_path / "tiny.zip")
    for split in ("train", "test"):
        source = datasets.open_source("tiny-imagenet", split, root=packed)
        assert whole(source) == whole(datasets.open_source("tiny-imagenet", split, root=tiny))
    (unpacked,) = (tmp_path / "data" / "unzipped").iterdir()
    assert Path(source.where(0)).is_relative_to(unpacked)
    known = source.fingerprint()
    shutil.rmtree(unpacked)
    time.sleep(0.05)  # unpacked again, later, its pictures are the same
    assert datasets.open_source("tiny-imagenet", "test", root=packed).fingerprint() == known
    shutil.rmtree(unpacked / "tiny-imagenet-200" / "val")
    assert len(datasets.open_source("tiny-imagenet", "train", root=packed, val_fraction=0)) == 30
    shutil.rmtree(tiny / "train" / WNIDS[0])
    as_zip(tiny, packed)  # another zip in its place
    with pytest.raises(CkfrError, match="cannot be read"):
        datasets.open_source("tiny-imagenet", "train", root=packed)


def test_tiny_imagenets_mistakes_are_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("CKFR_DATA", str(tmp_path / "data"))
    wnid = WNIDS[0]
    boxes = tiny / "train" / wnid / f"{wnid}_boxes.txt"
    good = boxes.read_text()

    def refuses(message: str, split: str = "train", root: Path = tiny) -> None:
        with pytest.raises(CkfrError, match=message):
            datasets.open_source("tiny-imagenet", split, root=root)

    boxes.write_text(good.replace("_3.JPEG\t3", "_3.JPEG\tthree"))
    refuses(f"Line 4 of train/{wnid}/{wnid}_boxes.txt")
    boxes.write_text("".join(good.splitlines(keepends=True)[1:]))
    refuses(f"{wnid}_0.JPEG, without a line in ")
    boxes.write_text(good)
    (tiny / "train" / wnid / "images" / f"{wnid}_7.JPEG").unlink()
    refuses(f"1 picture.*{wnid}_7.JPEG, listed but missing")
    (tiny / "wnids.txt").write_text("\n".join(WNIDS[:2]))
    refuses("gives val/images/val_4.JPEG the class", "test")
    boxes.unlink()
    refuses("_boxes.txt cannot be read")
    (tmp_path / "bad.zip").write_bytes(b"PK but no more")
    refuses("cannot be unpacked", root=tmp_path / "bad.zip")


def test_tiny_imagenet_is_verified_unpacked_and_opens(tiny, tmp_path, monkeypatch):
    content = as_zip(tiny, tmp_path / "published.zip").read_bytes()
    root = tmp_path / "data"
    with serve() as site:
        site.files["/tiny.zip"] = content
        site.faults["/tiny.zip"] = "corrupt"
        options = {"url": f"{site.url}/tiny.zip", "md5": hashlib.md5(content).hexdigest()}
        with pytest.raises(CkfrError, match="MD5"):
            datasets.fetch("tiny-imagenet", root=root, **options)
        assert list(root.iterdir()) == []
        site.faults.clear()
        for _ in range(2):
            site.asked.clear()
            folder = datasets.fetch("tiny-imagenet", root=root, **options)
        assert site.asked == []  # it is here
    assert list(root.iterdir()) == [folder] == [root / "tiny-imagenet-200"]
    monkeypatch.setenv("CKFR_DATA", str(root))  # the default place
    assert len(datasets.open_source("tiny-imagenet", "test")) == 6
