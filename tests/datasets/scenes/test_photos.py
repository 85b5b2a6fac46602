"""The photo list, the three ways to the photographs, and unpacking a Debian package."""

import csv
import gzip
import hashlib
import http.server
import io
import lzma
import shutil
import stat
import subprocess
import tarfile
import threading
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ckfr_helpers.datasets.fetch import debian
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


def test_list_says_what_is_wrong_with_it_and_where(tmp_path):
    good = project_file("photos.csv").read_text().splitlines()
    for line, message in [
        (good[1].replace(",val,", ",dev,").replace(",train,", ",dev,"), "line 2: the split 'dev'"),
        ("../" + good[1], "line 2: .* below the stamps folder"),
        (good[1][:-1], "line 2: expected a WordNet id"),
        (good[1] + ",x", "line 2 has 9 fields"),
        (good[2], "line 3: .* listed twice"),
    ]:
        path = tmp_path / f"{abs(hash(line))}.csv"
        path.write_text("\n".join([good[0], line, *good[2:]]))
        with pytest.raises(CkfrError, match=message):
            photos.read_list(path)


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
    assert "no apt-get" in message
    assert ("404" if fault == "absent" else "sha256") in message
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


# -- Debian packages -----------------------------------------------------------------------------


def deb(files: dict[str, bytes], packing: str = "xz") -> bytes:
    """A package as dpkg makes them: debian-binary, control.tar, data.tar in an ar archive."""
    data = tar({f"./{name}": content for name, content in files.items()}, "w")
    if packing == "zst":
        packed = subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    else:
        packed = {"xz": lzma.compress, "gz": gzip.compress, "": bytes}[packing](data)
    members = [("debian-binary", b"2.0\n"), ("control.tar.gz", tar({"./control": b"Package: x\n"}))]
    members.append((f"data.tar.{packing}".rstrip("."), packed))
    out = b"!<arch>\n"
    for name, content in members:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


FILES = {"usr/share/x/one.txt": b"one" * 5000, "usr/share/x/two.txt": b"two", "usr/bin/three": b""}


@pytest.mark.parametrize("packing", ["xz", "gz", "", "zst"])
def test_unpack_deb(tmp_path, packing):
    if packing == "zst" and not (shutil.which("zstd") and shutil.which("dpkg-deb")):
        pytest.skip("making and unpacking this kind needs zstd and dpkg-deb")
    (tmp_path / "x.deb").write_bytes(deb(FILES, packing))
    written = debian.unpack_deb(tmp_path / "x.deb", tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in written} == FILES


def test_unpack_deb_keeps_what_it_is_told(tmp_path):
    (tmp_path / "x.deb").write_bytes(deb(FILES))
    written = debian.unpack_deb(tmp_path / "x.deb", tmp_path / "out", lambda name: name.endswith("two.txt"))
    assert written == ["usr/share/x/two.txt"]
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["two.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 not a package", "not a Debian package"),
        (deb(FILES)[:-60], "damaged"),
        (deb(FILES)[:100], "cut short"),
        (deb({"../../outside": b"x"}), "outside the folder"),
    ],
)
def test_unpack_deb_refuses_what_is_damaged_or_dangerous(tmp_path, content, message):
    (tmp_path / "x.deb").write_bytes(content)
    with pytest.raises(CkfrError, match=message):
        debian.unpack_deb(tmp_path / "x.deb", tmp_path / "in" / "out")
    assert not (tmp_path / "outside").exists()


def fake_apt(folder: Path, script: str) -> None:
    """An ``apt-get`` for tests, called as ``-q -c SETTINGS COMMAND …``: $3 and $4 are the last two."""
    folder.mkdir()
    (folder / "apt-get").write_text("#!/bin/sh\n" + script)
    (folder / "apt-get").chmod(stat.S_IRWXU)


def test_fetch_deb_asks_for_fresh_lists_when_the_systems_do_not_help(tmp_path, monkeypatch):
    (tmp_path / "tiny_1.deb").write_bytes(deb(FILES))
    size = (tmp_path / "tiny_1.deb").stat().st_size
    fake_apt(
        tmp_path / "bin",
        f"""
        case "$3" in *system.conf) echo "E: Unable to locate package tiny" >&2; exit 100;; esac
        grep -q "Lists" "$3" || exit 9
        case "$4$5" in
          update) touch updated;;
          download--print-uris) [ -f updated ] && echo "'http://x/tiny_1.deb' tiny_1.deb {size} SHA256:0";;
          download*) cp {tmp_path}/tiny_1.deb . ;;
        esac
        """,
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    target = debian.fetch_deb("tiny", tmp_path / "out" / "tiny")
    assert (target / "usr/share/x/two.txt").read_bytes() == b"two"
    assert [path.name for path in target.parent.iterdir()] == ["tiny"]  # nothing left lying about
    monkeypatch.setenv("PATH", str(tmp_path))  # complete: the client is not asked again
    assert debian.fetch_deb("tiny", target) == target


def test_fetch_deb_passes_on_the_clients_reason_and_leaves_nothing(tmp_path, monkeypatch):
    fake_apt(tmp_path / "bin", 'echo "E: Unable to locate package nosuch" >&2; exit 100')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(CkfrError, match="nosuch: Unable to locate package nosuch"):
        debian.fetch_deb("nosuch", tmp_path / "out" / "nosuch")
    assert list((tmp_path / "out").iterdir()) == []


def test_fetch_deb_does_not_take_half_a_download(tmp_path, monkeypatch):
    (tmp_path / "half.deb").write_bytes(deb(FILES)[:-30])
    fake_apt(
        tmp_path / "bin",
        f"""
        case "$4$5" in
          download--print-uris) echo "'http://x/half.deb' half.deb 99999 SHA256:0";;
          download*) cp {tmp_path}/half.deb .; echo "E: Failed to fetch http://x/half.deb" >&2; exit 100;;
        esac
        """,
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(CkfrError, match="Failed to fetch"):
        debian.fetch_deb("half", tmp_path / "out" / "half")
    assert not (tmp_path / "out" / "half").exists()


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
