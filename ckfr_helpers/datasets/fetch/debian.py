"""Bring one Debian package's files, without root and without installing it.

Debian, Ubuntu and so Colab can all download a package with their own client, which knows the mirror and
checks every file against the signed index. This module asks that client for the ``.deb`` and unpacks it in
Python into a folder of ours; nothing on the system changes.
"""

import contextlib
import io
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

from ckfr_helpers.runtime import CkfrError

AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60  # bytes: name 16, date 12, owner 6, group 6, mode 8, size 10, end mark 2


def fetch_deb(package: str, target: Path, keep: Callable[[str], bool] | None = None) -> Path:
    """Download a Debian package and unpack it into ``target``, as the current user.

    The folder appears only when everything is in it, so an existing ``target`` is complete and is returned
    as it is. An interrupted call leaves nothing behind.

    Args:
        package: its Debian name, e.g. ``"tuxpaint-stamps-default"``.
        target: folder to make; the package's paths start below it (``target/usr/share/...``).
        keep: which members to unpack, by path (``"usr/share/..."``); all where None.

    Returns:
        ``target``.

    Raises:
        CkfrError: where there is no Debian client, or it cannot bring the package, or the package is damaged.
    """
    target = Path(target)
    if target.is_dir():
        return target
    if shutil.which("apt-get") is None:
        raise CkfrError(f"Cannot fetch the Debian package {package}: there is no apt-get on this machine.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        deb = _download(package, Path(scratch))
        unpack_deb(deb, Path(scratch) / "files", keep)
        (Path(scratch) / "files").rename(target)
    return target


def unpack_deb(deb: Path, target: Path, keep: Callable[[str], bool] | None = None) -> list[str]:
    """Unpack the regular files of a ``.deb`` (an ``ar`` archive with one compressed tar in it).

    Links, owners and permissions are left out: nothing here is meant to be run or installed.

    Args:
        deb: the package file.
        target: folder for its files; made where missing.
        keep: which members to unpack, by path; all where None.

    Returns:
        Paths of the regular files written, relative to ``target``.

    Raises:
        CkfrError: if the file is not a Debian package, is cut short, or a member would leave ``target``.
    """
    target.mkdir(parents=True, exist_ok=True)
    written = []
    try:
        with _data_tar(deb) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if not member.isfile() or (keep is not None and not keep(name)):
                    continue
                # tarfile's own filter="data" is missing from the Python 3.11.2 that Debian 12 ships.
                place = target / name
                if not place.resolve().is_relative_to(target.resolve()):
                    raise CkfrError(
                        f"{deb.name} holds {member.name!r}, a path outside the folder it is unpacked to."
                    )
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.extractfile(member) as source, open(place, "wb") as copy:  # type: ignore[union-attr]
                    shutil.copyfileobj(source, copy)
                written.append(name)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise CkfrError(f"{deb.name} is damaged and cannot be unpacked ({error}).") from error
    return written


@contextlib.contextmanager
def _data_tar(deb: Path) -> Iterator[IO[bytes]]:
    """The package's ``data.tar``, decompressed, as a stream."""
    with open(deb, "rb") as file:
        name, size = _find_data(deb, file)
        body = _Window(file, size)
        match name.removeprefix("data.tar"):
            case "":
                yield body
            case ".xz" | ".lzma":
                with lzma.open(body) as stream:
                    yield stream
            case ".gz":
                import gzip

                with gzip.open(body) as stream:
                    yield stream
            case ".zst":
                with _zstd(deb, body) as stream:
                    yield stream
            case other:
                raise CkfrError(f"{deb.name} packs its files as data.tar{other}; expected .xz, .zst or .gz.")


def _find_data(deb: Path, file: IO[bytes]) -> tuple[str, int]:
    """Move ``file`` to the start of the data member; its name and size."""
    if file.read(len(AR_MAGIC)) != AR_MAGIC:
        raise CkfrError(f"{deb.name} is not a Debian package: it does not start with {AR_MAGIC!r}.")
    while len(header := file.read(AR_HEADER)) == AR_HEADER:
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
        if header[58:] != b"`\n" or not size.isdigit():
            break
        if name.startswith("data.tar"):
            return name, int(size)
        file.seek(int(size) + int(size) % 2, os.SEEK_CUR)  # members start on even bytes
    raise CkfrError(f"{deb.name} is cut short or damaged: it has no data.tar member.")


class _Window(io.RawIOBase):
    """The next ``size`` bytes of a file, as a file of their own; an early end is an error."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        wanted = min(len(buffer), self.left)
        data = self.file.read(wanted)
        if len(data) < wanted:
            raise EOFError("the file ends early")
        buffer[:wanted] = data
        self.left -= wanted
        return wanted


@contextlib.contextmanager
def _zstd(deb: Path, body: IO[bytes]) -> Iterator[IO[bytes]]:
    """Decompress Zstandard, which Ubuntu uses: Python before 3.14 has no module for it, dpkg always can."""
    try:
        from compression import zstd  # Python 3.14
    except ImportError:
        pass
    else:
        with zstd.open(body) as stream:
            yield stream
        return
    try:
        import zstandard
    except ImportError:
        pass
    else:
        with zstandard.ZstdDecompressor().stream_reader(body) as stream:
            yield stream
        return
    if shutil.which("dpkg-deb") is None:
        raise CkfrError(
            f"{deb.name} is Zstandard-compressed; expected dpkg-deb or the Python package zstandard."
        )
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
        process.stdout.read()  # let it finish, whatever the reader skipped
    if process.returncode:
        raise CkfrError(f"{deb.name} is damaged: dpkg-deb ended with status {process.returncode}.")


def _download(package: str, scratch: Path) -> Path:
    """Ask the Debian client for the package; first with the system's lists, then with fresh private ones."""
    # System lists may be absent (a container) or name a version that the mirror has replaced.
    attempts = [_client(scratch, private_lists=False), _client(scratch, private_lists=True)]
    trouble = ""
    for private, client in enumerate(attempts):
        if private:
            trouble = _run([*client, "update"], scratch).stderr or trouble
        asked = _run([*client, "download", "--print-uris", package], scratch)
        trouble = asked.stderr or trouble
        if asked.returncode:
            continue
        # One line: 'address' file size hash
        fields = re.search(r"'[^']*' (\S+) (\d+)", asked.stdout)
        size = int(fields.group(2)) if fields else None
        trouble = _run_with_bar([*client, "download", package], scratch, package, size) or trouble
        for deb in scratch.glob("*.deb"):
            if size is None or deb.stat().st_size == size:
                return deb
    lines = [
        line for line in trouble.strip().splitlines() if line.startswith("E:")
    ] or trouble.strip().splitlines()
    why = lines[-1].removeprefix("E:").strip() if lines else "it gave no reason"
    raise CkfrError(f"The Debian client could not bring the package {package}: {why.rstrip('.')}.")


def _client(scratch: Path, private_lists: bool) -> list[str]:
    """The ``apt-get`` command that writes only below ``scratch``."""
    for folder in ("cache/archives/partial", "state/lists/partial", "log"):
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    settings = {"Dir::Cache": "cache", "Dir::Log": "log", "APT::Sandbox::User": None}
    if private_lists:
        settings["Dir::State::Lists"] = "state/lists"
    lines = [f'{key} "{scratch / value if value else ""}";' for key, value in settings.items()]
    # System hooks would touch system folders, for which we have no rights.
    lines += [f"#clear APT::Update::{hook};" for hook in ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")]
    config = scratch / ("private.conf" if private_lists else "system.conf")
    config.write_text("\n".join(lines) + "\n")
    return ["apt-get", "-q", "-c", str(config)]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    language = {**os.environ, "LC_ALL": "C"}  # we read what it says
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=language)


def _run_with_bar(command: list[str], folder: Path, title: str, size: int | None) -> str:
    """Run a download and show its progress by the bytes that have arrived; returns its messages."""

    def arrived() -> int:
        return sum(path.stat().st_size for path in folder.rglob("*.deb") if path.is_file())

    language = {**os.environ, "LC_ALL": "C"}
    with (
        open(folder / "messages", "w+") as messages,
        tqdm(total=size, desc=title, unit="B", unit_scale=True) as bar,
        subprocess.Popen(command, cwd=folder, stdout=messages, stderr=messages, env=language) as process,
    ):
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                with contextlib.suppress(FileNotFoundError):  # the client renames while we look
                    if (more := arrived() - bar.n) > 0:
                        bar.update(more)
        except BaseException:
            process.terminate()
            raise
        messages.seek(0)
        return messages.read()
