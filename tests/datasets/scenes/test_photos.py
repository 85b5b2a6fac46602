"""The photo list, and the two ways to the photographs."""

import hashlib
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from local_server import serve

from ckfr_helpers.datasets.scenes import photos
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError

ROWS = photos.read_list()


def test_the_list_is_well_formed():
    columns = ["file", "wnid", "class", "kind", "split", "remove", "same_object", "sha256"]
    for row in ROWS:
        assert list(row) == columns
        assert re.fullmatch("n[0-9]{8}", row["wnid"])
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"])
        assert row["remove"] in ("", "grass")
        assert re.fullmatch(r"(\w[\w-]*/)*\w[\w-]*\.png", row["file"])  # below the stamps folder
    assert len({row["file"] for row in ROWS}) == len({row["sha256"] for row in ROWS}) == len(ROWS)
    assert len({(row["wnid"], row["class"]) for row in ROWS}) == len(photos.class_ids())
    shallow = Hierarchy.from_wordnet(photos.class_ids()).compressed()  # refuses a class above another
    assert max(shallow.depth(one) for one in shallow.classes) >= 4  # branchings, not only links


def test_split_follows_the_documented_rule():
    """Written anew from data/README.md, not from the script that made the list."""
    for wnid in photos.class_ids():
        members = sorted((row for row in ROWS if row["wnid"] == wnid), key=lambda row: row["sha256"])
        size = len(members)
        room = {"test": (size + 2) // 4, "val": size // 4}
        room["train"] = size - room["test"] - room["val"]
        kinds = Counter(row["kind"] for row in members)
        expected: dict[str, str] = {}
        seen = set()
        for row in members:
            if kinds[row["kind"]] > 1 and row["kind"] not in seen and len(expected) < room["train"]:
                expected[row["file"]] = "train"
                seen.add(row["kind"])
        for row in members:
            for other in members:
                if other["same_object"] == row["file"] and {row["file"], other["file"]} & expected.keys():
                    expected[row["file"]] = expected[other["file"]] = "train"
        for row in members:
            taken = Counter(expected.values())
            free = next(name for name in ("test", "val", "train") if taken[name] < room[name])
            expected.setdefault(row["file"], free)
        assert expected == {row["file"]: row["split"] for row in members}
        assert all(expected[row["same_object"]] == row["split"] for row in members if row["same_object"])
        assert {"train", "val", "test"} == set(expected.values())


# -- Cut-outs ------------------------------------------------------------------------------------


def stamp() -> np.ndarray:
    """A grey square with a rim of empty pixels."""
    pixels = np.zeros((60, 60, 4), np.uint8)
    pixels[20:50, 15:45] = (120, 118, 116, 255)
    return pixels


def test_clean_crops_to_the_object_and_drops_specks_but_not_parts():
    pixels = stamp()
    pixels[2, 2] = (255, 255, 255, 255)  # dust
    pixels[0:4, 55:60] = (90, 90, 90, 60)  # a faint veil
    assert photos.clean(pixels).shape == (30, 30, 4)
    pixels[20:50, 50:56] = (120, 118, 116, 255)  # something that belongs to it
    assert photos.clean(pixels).shape == (30, 41, 4)
    with pytest.raises(CkfrError, match="no opaque pixel"):
        photos.clean(np.zeros((8, 8, 4), np.uint8))


def test_clean_takes_grass_away_only_at_the_feet_and_only_when_told():
    pixels = stamp()
    pixels[50:56, 10:50] = (60, 140, 50, 255)
    pixels[22:26, 20:40] = (60, 140, 50, 255)
    assert photos.clean(pixels).shape == (36, 40, 4)
    cleaned = photos.clean(pixels, grass=True)
    assert np.abs(np.array(cleaned.shape[:2]) - 30).max() <= 2
    assert cleaned[4, 15, 3] == 255  # green on the back stays


# -- Fetching ------------------------------------------------------------------------------------

CONTENT = {"animals/lion.png": b"a lion", "food/apple.png": b"an apple"}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Two photographs in a release on this machine, and no Debian client."""
    stamps = put(tmp_path / "release" / "stamps", CONTENT)
    with tarfile.open(tmp_path / "release.tar.gz", "w:gz") as archive:
        archive.add(stamps, "tuxpaint-stamps-1/stamps")
    wanted = [{"file": file, "sha256": hashlib.sha256(data).hexdigest()} for file, data in CONTENT.items()]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(photos, "read_list", lambda: tuple(wanted))
    with serve() as server:
        server.files["/release.tar.gz"] = (tmp_path / "release.tar.gz").read_bytes()
        checksum = hashlib.sha256(server.files["/release.tar.gz"]).hexdigest()
        monkeypatch.setattr(photos, "RELEASE", f"{server.url}/release.tar.gz")
        monkeypatch.setattr(photos, "RELEASE_SHA256", checksum)
        yield server


def test_fetch_copies_what_is_listed_and_leaves_whole_files_alone(tmp_path, site):
    folder = photos.fetch(tmp_path / "data")
    assert folder == tmp_path / "data" / "photos"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["photos"]  # the archive is gone
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == CONTENT
    site.asked.clear()
    photos.fetch(tmp_path / "data")
    assert not site.asked
    (folder / "animals/lion.png").write_bytes(b"half a lion")
    time = (folder / "food/apple.png").stat().st_mtime_ns
    photos.fetch(tmp_path / "data")
    assert (folder / "animals/lion.png").read_bytes() == CONTENT["animals/lion.png"]
    assert (folder / "food/apple.png").stat().st_mtime_ns == time


def test_fetch_takes_the_debian_package_first_and_the_release_for_what_it_lacks(tmp_path, site, monkeypatch):
    """A package of another version has one file in common; the release brings the other."""
    content = {**CONTENT, "food/apple.png": b"another apple"}
    monkeypatch.setattr(photos, "fetch_deb", lambda _, to: put(to / photos.STAMPS, content) and to)
    folder = photos.fetch(tmp_path / "data")
    assert {file: (folder / file).read_bytes() for file in CONTENT} == CONTENT
    assert site.asked
    content["food/apple.png"] = CONTENT["food/apple.png"]
    site.asked.clear()
    photos.fetch(tmp_path / "new")
    assert not site.asked


@pytest.mark.parametrize(("fault", "reason"), [("missing", "404"), ("corrupt", "SHA256")])
def test_fetch_says_why_each_way_failed(tmp_path, site, fault, reason):
    site.faults["/release.tar.gz"] = fault
    with pytest.raises(CkfrError, match=f"2 photographs could not be fetched: .*needs apt-get.*{reason}"):
        photos.fetch(tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.png"))


def test_missing_and_damaged_photographs_are_named(tmp_path):
    with pytest.raises(CkfrError, match="ckfr fetch photos"):
        photos.open_cutouts("val", tmp_path)
    put(tmp_path / "photos", {ROWS[0]["file"]: b"no lion"})
    with pytest.raises(CkfrError, match=rf"{ROWS[0]['file']} is missing or damaged"):
        photos.open_cutouts(ROWS[0]["split"], tmp_path)


@pytest.mark.photos
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_all_photographs_are_whole_cut_outs(split):
    cutouts = photos.open_cutouts(split)
    assert {one.label for one in cutouts} == set(range(len(photos.class_ids())))
    for one in cutouts:
        alpha = one.pixels[..., 3]
        assert all(rim.any() for rim in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))
        assert 0.03 < (alpha > 127).mean() < 0.99, one.name  # a silhouette, not a rectangle
