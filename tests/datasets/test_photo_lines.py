"""Lines are read in any language, and fetched beside pictures that stay as they are."""

import hashlib
import tarfile

import pytest
from local_server import serve

from ckfr_helpers.datasets import photo_lines
from ckfr_helpers.datasets.scenes import photos
from ckfr_helpers.runtime import CkfrError

TEXTS = {
    "animals/pig.txt": "A pig.\nde.utf8=Ein Schwein. \nam.utf8=አሳማ\nxx=old\nfr.utf8=\n",
    "food/apple.txt": "An apple.\nde.utf8=Ein Apfel.\n",
}
FILES = ("animals/pig.png", "food/apple.png")


def put(folder, texts=TEXTS):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_lines_come_in_the_order_asked_for_and_in_the_language_asked_for(tmp_path):
    put(tmp_path / "photos")
    assert photo_lines.read_lines(FILES, root=tmp_path) == ("A pig.", "An apple.")
    assert photo_lines.read_lines(FILES[::-1], "de", tmp_path) == ("Ein Apfel.", "Ein Schwein.")
    assert photo_lines.read_lines(FILES[:1], "am", tmp_path) == ("አሳማ",)
    assert photo_lines.languages(FILES, tmp_path) == ("de", "en")
    assert photo_lines.languages(FILES[:1], tmp_path) == ("am", "de", "en")


def test_what_is_missing_is_said(tmp_path):
    put(tmp_path / "photos")
    with pytest.raises(CkfrError, match=r"animals/pig\.png has no line in 'fr'; it has am, de, en"):
        photo_lines.read_lines(FILES, "fr", tmp_path)
    (tmp_path / "photos" / "food" / "apple.txt").write_bytes(b"\xff\xfe")
    for name in ("food/apple.png", "food/pear.png"):
        with pytest.raises(CkfrError, match=r"\.txt is missing or damaged; `ckfr fetch photo-lines`"):
            photo_lines.read_lines([name], root=tmp_path)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Texts of two photographs in a release on this machine, and no Debian client."""
    with tarfile.open(tmp_path / "release.tar.gz", "w:gz") as archive:
        archive.add(put(tmp_path / "release" / "stamps"), "tuxpaint-stamps-1/stamps")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(photos, "read_list", lambda: tuple({"file": file} for file in FILES))
    with serve() as server:
        server.files["/release.tar.gz"] = (tmp_path / "release.tar.gz").read_bytes()
        checksum = hashlib.sha256(server.files["/release.tar.gz"]).hexdigest()
        monkeypatch.setattr(photos, "RELEASE", f"{server.url}/release.tar.gz")
        monkeypatch.setattr(photos, "RELEASE_SHA256", checksum)
        yield server


def test_fetch_brings_the_texts_once_and_leaves_pictures_alone(tmp_path, site):
    folder = put(tmp_path / "data" / "photos", {"animals/pig.png": "a picture", "animals/pig.txt": "Mine."})
    assert photo_lines.fetch(tmp_path / "data") == folder
    assert photo_lines.read_lines(FILES, root=tmp_path / "data") == ("Mine.", "An apple.")
    assert (folder / "animals/pig.png").read_text() == "a picture"
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["photos"]
    site.asked.clear()
    photo_lines.fetch(tmp_path / "data")
    assert not site.asked


def test_fetch_says_why_each_way_failed(tmp_path, site, monkeypatch):
    monkeypatch.setattr(photos, "read_list", lambda: ({"file": "food/pear.png"},))
    with pytest.raises(CkfrError, match=r"could not be fetched: .*needs apt-get.* has no food/pear\.txt"):
        photo_lines.fetch(tmp_path / "data")
