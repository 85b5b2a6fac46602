"""The photo list, and the three ways to the photographs."""

import csv
import hashlib
import http.server
import io
import re
import tarfile
import threading
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ckfr_helpers.datasets.scenes import photos
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError, project_file

HAVE_PHOTOS = all((photos.data_root() / photos.FOLDER / photo.file).is_file() for photo in photos.read_list())
needs_photos = [
    pytest.mark.photos,
    pytest.mark.skipif(not HAVE_PHOTOS, reason="the photographs are not here: `ckfr fetch photos`"),
]


# -- The list ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with open(project_file("photos.csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_every_class_has_enough_photographs_in_every_split(rows):
    by_class = defaultdict(Counter)
    for row in rows:
        by_class[row["wnid"]][row["split"]] += 1
    assert len(by_class) >= 18
    for counts in by_class.values():
        assert counts.total() >= 4
        assert counts["train"] >= 2
        assert counts["val"] >= 1
        assert counts["test"] >= 1
        assert set(counts) == {"train", "val", "test"}


def test_no_photograph_stands_twice(rows):
    assert len({row["file"] for row in rows}) == len({row["sha256"] for row in rows}) == len(rows)
    split = {row["file"]: row["split"] for row in rows}
    pairs = [row for row in rows if row["same_object"]]
    assert pairs
    for row in pairs:  # two photographs of one animal must not sit on both sides of a split
        assert split[row["same_object"]] == row["split"]


def test_every_row_is_well_formed(rows):
    for row in rows:
        assert re.fullmatch("n[0-9]{8}", row["wnid"])
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"])
        assert row["remove"] in ("", "grass")
        assert re.fullmatch(r"(\w[\w-]*/)*\w[\w-]*\.png", row["file"])  # below the stamps folder


def test_one_name_per_class(rows):
    names = {(row["wnid"], row["class"]) for row in rows}
    assert len(names) == len({wnid for wnid, _ in names}) == len({name for _, name in names})


def test_split_follows_the_documented_rule(rows):
    """Written anew from data/README.md, not from the script that made the list."""
    for wnid in {row["wnid"] for row in rows}:
        members = sorted((row for row in rows if row["wnid"] == wnid), key=lambda row: row["sha256"])
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


def test_classes_are_leaves_of_a_deep_wordnet_tree():
    hierarchy = Hierarchy.from_wordnet(photos.class_ids())  # refuses a class above another
    shallow = hierarchy.compressed()
    assert max(shallow.depth(one) for one in shallow.classes) >= 4  # branchings, not only links
    assert len(hierarchy.classes) == len(set(hierarchy.classes))


# -- Cut-outs ------------------------------------------------------------------------------------


def stamp(size: int = 60) -> np.ndarray:
    """A grey square with a rim of empty pixels."""
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[20:50, 15:45] = (120, 118, 116, 255)
    return pixels


def test_clean_crops_to_the_object():
    assert photos.clean(stamp()).shape == (30, 30, 4)


def test_clean_drops_specks_but_not_parts():
    pixels = stamp()
    pixels[2, 2] = (255, 255, 255, 255)  # dust
    pixels[0:4, 55:60] = (90, 90, 90, 60)  # a faint veil
    assert photos.clean(pixels).shape == (30, 30, 4)
    pixels[20:50, 50:56] = (120, 118, 116, 255)  # something that belongs to it
    assert photos.clean(pixels).shape == (30, 41, 4)


def test_clean_takes_grass_away_only_at_the_feet_and_only_when_told():
    pixels = stamp()
    pixels[50:56, 10:50] = (60, 140, 50, 255)
    pixels[22:26, 20:40] = (60, 140, 50, 255)
    assert photos.clean(pixels).shape == (36, 40, 4)
    cleaned = photos.clean(pixels, grass=True)
    assert abs(cleaned.shape[0] - 30) <= 2
    assert abs(cleaned.shape[1] - 30) <= 2
    assert cleaned[4, 15, 3] == 255  # green on the back stays


def test_an_empty_stamp_is_refused():
    with pytest.raises(CkfrError, match="no opaque pixel"):
        photos.clean(np.zeros((8, 8, 4), np.uint8))


# -- Fetching ------------------------------------------------------------------------------------


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((5, 4, 4), value, np.uint8), "RGBA").save(buffer, "png")
    return buffer.getvalue()


CONTENT = {"animals/lion.png": picture(100), "food/apple.png": picture(200)}
WANTED = tuple(
    photos.Photo(file, "n02129165", "x", "x", "train", "", "", hashlib.sha256(data).hexdigest())
    for file, data in CONTENT.items()
)


def put(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def no_apt(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.fixture
def server(tmp_path):
    """Serves ``tmp_path/served`` on this machine; yields its address and folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    ) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", folder
        listening.shutdown()


def test_fetch_copies_only_what_is_listed_from_an_installed_package(tmp_path):
    installed = put(tmp_path / "stamps", {**CONTENT, "other/thing.png": b"x"})
    folder = photos.fetch(tmp_path / "data", installed=installed, photos=WANTED)
    assert folder == tmp_path / "data" / "photos"
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == CONTENT


def test_fetch_leaves_whole_files_alone_and_replaces_damaged_ones(tmp_path, no_apt):
    installed = put(tmp_path / "stamps", CONTENT)
    folder = photos.fetch(tmp_path, installed=installed, photos=WANTED)
    times = {file: (folder / file).stat().st_mtime_ns for file in CONTENT}
    photos.fetch(tmp_path, installed=tmp_path / "gone", photos=WANTED)  # nothing to do: no source is asked
    assert times == {file: (folder / file).stat().st_mtime_ns for file in CONTENT}
    (folder / "animals/lion.png").write_bytes(b"half a lion")
    photos.fetch(tmp_path, installed=installed, photos=WANTED)
    assert (folder / "animals/lion.png").read_bytes() == CONTENT["animals/lion.png"]


def test_fetch_takes_the_rest_from_the_release(tmp_path, no_apt, server):
    """An installed copy of another version has one file in common; the release brings the other."""
    address, served = server
    archive = tar({f"tuxpaint-stamps-1/stamps/{file}": data for file, data in CONTENT.items()})
    (served / "release.tar.gz").write_bytes(archive)
    installed = put(tmp_path / "stamps", {**CONTENT, "food/apple.png": b"another apple"})
    folder = photos.fetch(
        tmp_path / "data",
        installed=installed,
        release=f"{address}/release.tar.gz",
        release_sha256=hashlib.sha256(archive).hexdigest(),
        photos=WANTED,
    )
    assert {file: (folder / file).read_bytes() for file in CONTENT} == CONTENT
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["photos"]  # the archive is gone


@pytest.mark.parametrize("fault", ["absent", "truncated", "other"])
def test_fetch_reports_a_release_that_is_not_what_it_should_be(tmp_path, no_apt, server, fault):
    address, served = server
    archive = tar({f"r/stamps/{file}": data for file, data in CONTENT.items()})
    if fault != "absent":
        (served / "release.tar.gz").write_bytes(archive[:-40] if fault == "truncated" else archive + b"!")
    with pytest.raises(CkfrError) as caught:
        photos.fetch(
            tmp_path / "data",
            installed=tmp_path / "none",
            release=f"{address}/release.tar.gz",
            release_sha256=hashlib.sha256(archive).hexdigest(),
            photos=WANTED,
        )
    message = str(caught.value)
    assert "2 of 2 photographs could not be fetched, the first being animals/lion.png" in message
    assert "there is none" in message  # no installed copy
    assert "needs apt-get" in message
    assert ("404" if fault == "absent" else "SHA256") in message
    assert not list((tmp_path / "data").rglob("*.png"))


def test_a_release_with_a_changed_file_is_not_taken(tmp_path, no_apt, server):
    address, served = server
    archive = tar({"r/stamps/animals/lion.png": CONTENT["animals/lion.png"], "r/stamps/food/apple.png": b"?"})
    (served / "release.tar.gz").write_bytes(archive)
    with pytest.raises(CkfrError, match=r"1 of 2 .* food/apple\.png"):
        photos.fetch(
            tmp_path,
            installed=tmp_path / "none",
            release=f"{address}/release.tar.gz",
            release_sha256=hashlib.sha256(archive).hexdigest(),
            photos=WANTED,
        )


def test_missing_and_damaged_photographs_are_named(tmp_path):
    with pytest.raises(CkfrError, match="ckfr fetch photos"):
        photos.open_cutouts("val", tmp_path)
    first = photos.read_list()[0]
    put(tmp_path / "photos", {first.file: b"no lion"})
    with pytest.raises(CkfrError, match=rf"{first.file} is damaged"):
        photos.open_cutouts(first.split, tmp_path)


# -- The photographs themselves ------------------------------------------------------------------


class TestRealPhotographs:
    pytestmark = needs_photos

    def test_all_are_whole_cut_outs(self):
        for split in ("train", "val", "test"):
            cutouts = photos.open_cutouts(split)
            assert {one.label for one in cutouts} == set(range(len(photos.class_ids())))
            for one in cutouts:
                alpha = one.pixels[..., 3]
                for rim in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
                    assert rim.any()
                assert 0.03 < (alpha > 127).mean() < 0.99, one.name  # a silhouette, not a rectangle

    def test_no_two_are_the_same_picture_mirrored_or_recoloured(self):
        """Silhouettes at 24 × 24: a mirrored or recoloured copy would have the same one."""
        shapes, names = [], []
        for split in ("train", "val", "test"):
            for one in photos.open_cutouts(split):
                alpha = Image.fromarray(one.pixels[..., 3]).resize((24, 24), Image.Resampling.BOX)
                shapes.append(np.asarray(alpha, np.float32).ravel() / 255)
                names.append((one.name, one.pixels.shape[1] / one.pixels.shape[0]))
        flat = np.stack(shapes)
        mirrored = flat.reshape(-1, 24, 24)[:, :, ::-1].reshape(len(flat), -1)
        for other in (flat, mirrored):
            near = np.abs(flat[:, None] - other[None]).mean(-1) < 0.015
            for a, b in zip(*np.nonzero(np.triu(near, 1)), strict=True):
                (first, shape_a), (second, shape_b) = names[a], names[b]
                # Round things have round silhouettes; anything else must differ.
                assert abs(shape_a - 1) < 0.15 and abs(shape_b - 1) < 0.15, (first, second)  # noqa: PT018
