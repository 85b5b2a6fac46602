"""Downloads from a server on this machine that behaves well, breaks off, lies or refuses; and unpacking."""

import hashlib
import io
import tarfile
import zipfile

import pytest
from local_server import serve

from ckfr_helpers.datasets.fetching.download import download, unpack, working_folder
from ckfr_helpers.runtime import CkfrError

CONTENT = bytes(range(256)) * 400
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site():
    with serve() as site:
        site.files["/file"] = CONTENT
        yield site


@pytest.mark.parametrize("checksum", [SHA256, "md5:" + hashlib.md5(CONTENT).hexdigest()])
def test_a_good_download_is_whole_alone_and_not_asked_for_again(site, tmp_path, checksum):
    for _ in range(2):
        target = download(f"{site.url}/file", tmp_path / "new" / "file.bin", checksum)
        assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]
    assert site.asked == ["/file"]


def test_a_connection_that_breaks_once_is_asked_again(site, tmp_path):
    site.faults["/file"] = "breaks"
    assert download(f"{site.url}/file", tmp_path / "f", SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "message"), [("corrupt", "SHA256"), ("dies", "could not be downloaded"), ("missing", "404")]
)
def test_a_failed_download_is_one_sentence_and_leaves_what_was_there(site, tmp_path, fault, message):
    (tmp_path / "f").write_bytes(b"yesterday's")
    site.faults["/file"] = fault
    with pytest.raises(CkfrError, match=message) as caught:
        download(f"{site.url}/file", tmp_path / "f", SHA256)
    assert f"{site.url}/file" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "f").read_bytes() == b"yesterday's"
    assert len(list(tmp_path.iterdir())) == 1


def test_nobody_there_is_one_sentence(tmp_path):
    with pytest.raises(CkfrError, match=r"127\.0\.0\.1:1/x cannot be reached \(ConnectionError\)"):
        download("http://127.0.0.1:1/x", tmp_path / "f", SHA256)


def pack(kind: str, name: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, b"1")
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"1"))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_unpacking(tmp_path, kind):
    archive = tmp_path / f"a.{kind}"
    archive.write_bytes(pack(kind, "top/deep/one.txt"))
    assert (unpack(archive, tmp_path / "out") / "top" / "deep" / "one.txt").read_bytes() == b"1"
    archive.write_bytes(pack(kind, "../escaped.txt"))
    if kind != "zip" and hasattr(tarfile, "data_filter"):
        with pytest.raises(CkfrError, match=r"a\.tar\.gz cannot be unpacked"):
            unpack(archive, tmp_path / "evil")
    elif kind == "zip":
        unpack(archive, tmp_path / "evil")  # skipped
    assert not (tmp_path / "escaped.txt").exists()
    archive.write_bytes(b"<html>Sorry, not today</html>" * 30)
    with pytest.raises(CkfrError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "none")


def test_a_working_folder_is_empty_at_first_gone_at_last_and_for_one_process(tmp_path):
    target = tmp_path / "data" / "result"
    left = tmp_path / "data" / ".result.unfinished"
    left.mkdir(parents=True)
    (left / "torn").write_text("from a call that was killed")
    with working_folder(target) as scratch:
        assert list(scratch.iterdir()) == []
        with pytest.raises(CkfrError, match="Another process is fetching"), working_folder(target):
            pass
        (scratch / "made").mkdir()
        (scratch / "made").rename(target)
    assert [path.name for path in target.parent.iterdir()] == ["result"]
    with pytest.raises(KeyboardInterrupt), working_folder(target):
        raise KeyboardInterrupt
    assert [path.name for path in target.parent.iterdir()] == ["result"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CkfrError, match=r"cannot be written \("), working_folder(tmp_path / "file" / "x"):
        pass
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("")
    (tmp_path / "new").mkdir()

    def put_in_place() -> None:
        with working_folder(tmp_path / "taken"):
            (tmp_path / "new").rename(tmp_path / "taken")

    with pytest.raises(CkfrError, match=r"taken could not be put in place \("):
        put_in_place()
    assert (tmp_path / "taken" / "mine.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new", "taken"]
