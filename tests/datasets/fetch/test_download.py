"""Downloads from a server on this machine that behaves well, breaks off, lies or refuses; and unpacking."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from ckfr_helpers.datasets.fetch.download import download, extract, file_hash
from ckfr_helpers.runtime import CkfrError

CONTENT = bytes(range(256)) * 4000  # about 1 MB, more than one read
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """One address for each kind of server; what was asked for is kept in ``asked``."""

    def do_GET(self) -> None:
        start = 0
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        kind = self.path.strip("/")
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "busy" and len(self.server.asked) < 3:
            self.send_error(503)
            return
        content = CONTENT[:-1] + b"x" if kind == "corrupt" else CONTENT
        if wanted and kind != "no-ranges":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind in ("breaks", "no-ranges") and len(self.server.asked) < 3:
            body = body[:300_000]  # then the connection closes
        if kind == "dies":
            body = body[:1000]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def address(server: http.server.ThreadingHTTPServer, kind: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{kind}"


@pytest.mark.parametrize("checksum", [{"sha256": SHA256}, {"md5": MD5}, {"sha256": SHA256.upper()}])
def test_a_good_download_is_whole_and_leaves_nothing_else(server, tmp_path, checksum):
    target = download(address(server, "good"), tmp_path / "new" / "file.bin", progress=False, **checksum)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_a_file_that_is_there_is_not_asked_for_again(server, tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(CONTENT)
    download(address(server, "good"), target, sha256=SHA256, progress=False)
    assert server.asked == []


def test_a_broken_connection_resumes_where_it_stopped(server, tmp_path):
    target = download(address(server, "breaks"), tmp_path / "f", sha256=SHA256, progress=False)
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=300000-", "bytes=600000-"]


def test_a_later_call_resumes_what_an_earlier_one_left(server, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT[:123_456])
    target = download(address(server, "good"), tmp_path / "f", md5=MD5, progress=False)
    assert target.read_bytes() == CONTENT
    assert server.asked == [("/good", "bytes=123456-")]


def test_a_part_that_is_already_whole_only_needs_its_checksum(server, tmp_path):
    (tmp_path / "f.part").write_bytes(CONTENT)
    assert download(address(server, "good"), tmp_path / "f", md5=MD5, progress=False).read_bytes() == CONTENT


def test_a_server_without_ranges_is_begun_again(server, tmp_path):
    target = download(address(server, "no-ranges"), tmp_path / "f", sha256=SHA256, progress=False)
    assert target.read_bytes() == CONTENT


def test_a_part_of_another_version_is_thrown_away_once(server, tmp_path):
    (tmp_path / "f.part").write_bytes(b"old" * 1000)
    target = download(address(server, "good"), tmp_path / "f", sha256=SHA256, progress=False)
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["bytes=3000-", None]


def test_a_busy_server_is_asked_again(server, tmp_path):
    target = download(address(server, "busy"), tmp_path / "f", sha256=SHA256, progress=False)
    assert target.read_bytes() == CONTENT


def test_a_wrong_file_is_refused_and_removed(server, tmp_path):
    with pytest.raises(CkfrError, match=f"sha256 is [0-9a-f]{{64}}, expected {SHA256}"):
        download(address(server, "corrupt"), tmp_path / "f", sha256=SHA256, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert len(server.asked) == 1


def test_an_old_good_file_survives_a_failed_download(server, tmp_path):
    target = tmp_path / "f"
    target.write_bytes(b"yesterday's")
    with pytest.raises(CkfrError):
        download(address(server, "corrupt"), target, sha256=SHA256, progress=False)
    assert target.read_bytes() == b"yesterday's"


def test_a_missing_file_is_said_to_be_missing_at_once(server, tmp_path):
    with pytest.raises(CkfrError, match="answered 404 Not Found"):
        download(address(server, "missing"), tmp_path / "f", sha256=SHA256, progress=False)
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_connection_that_keeps_breaking_ends_in_one_sentence_and_keeps_what_came(server, tmp_path):
    with pytest.raises(
        CkfrError, match=r"closed after 3000 of .* 3000 bytes are kept, and asking again resumes"
    ):
        download(address(server, "dies"), tmp_path / "f", sha256=SHA256, progress=False, attempts=3)
    assert (tmp_path / "f.part").stat().st_size == 3000
    assert not (tmp_path / "f").exists()


def test_nobody_there_is_one_sentence(tmp_path):
    with pytest.raises(CkfrError, match="could not be downloaded"):
        download("http://127.0.0.1:1/x", tmp_path / "f", sha256=SHA256, progress=False, attempts=2)


def test_a_download_without_a_checksum_is_refused(server, tmp_path):
    with pytest.raises(CkfrError, match="needs a checksum"):
        download(address(server, "good"), tmp_path / "f", progress=False)


def test_file_hash_is_hashlibs(tmp_path):
    (tmp_path / "f").write_bytes(CONTENT)
    assert file_hash(tmp_path / "f") == SHA256
    assert file_hash(tmp_path / "f", "md5") == MD5


# -- Unpacking ---------------------------------------------------------------------------------------------


def pack(path: Path, files: dict[str, bytes]) -> Path:
    """A zip or a tar.gz of the given files, by the path's ending."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_unpacking_whole_and_in_part(tmp_path, name):
    archive = pack(tmp_path / name, {"top/one.txt": b"1", "top/deep/two.txt": b"2", "other.txt": b"3"})
    extract(archive, tmp_path / "all")
    assert (tmp_path / "all" / "other.txt").read_bytes() == b"3"
    extract(archive, tmp_path / "part", inner="top")
    assert (tmp_path / "part" / "deep" / "two.txt").read_bytes() == b"2"
    assert not (tmp_path / "part" / "other.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "all", "part"])
    if os.name == "posix":  # not left as private as the scratch folder
        plain = tmp_path / "plain"
        plain.mkdir()
        assert (tmp_path / "all").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, name):
    archive = pack(tmp_path / name, {"top/one.bin": os.urandom(200_000)})
    data = bytearray(archive.read_bytes())
    data[50_000:150_000] = bytes(100_000)
    archive.write_bytes(data)
    with pytest.raises(CkfrError, match=f"{name} cannot be unpacked"):
        extract(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>Sorry, not today</html>" * 30)
    with pytest.raises(CkfrError, match="cannot be unpacked"):
        extract(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_nothing_is_written_outside_the_folder(tmp_path, name):
    archive = pack(tmp_path / name, {"../escaped.txt": b"boo"})
    if name == "a.zip":
        extract(archive, tmp_path / "out")  # zipfile drops the dots
        assert (tmp_path / "out" / "escaped.txt").exists()
    else:
        with pytest.raises(CkfrError, match="outside the folder"):
            extract(archive, tmp_path / "out")
    assert not list(tmp_path.parent.glob("escaped.txt"))
    assert not (tmp_path / "escaped.txt").exists()


def test_a_wrong_archive_and_a_taken_place_are_named(tmp_path):
    archive = pack(tmp_path / "a.zip", {"else/one.txt": b"1"})
    with pytest.raises(CkfrError, match="has no folder 'top'"):
        extract(archive, tmp_path / "out", inner="top")
    (tmp_path / "out").mkdir()
    with pytest.raises(CkfrError, match="there already"):
        extract(archive, tmp_path / "out")
