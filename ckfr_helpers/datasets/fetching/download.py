"""What every `ckfr fetch` shares: verified downloads, and a working place that never looks like a result."""

import contextlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pooch
import requests
from filelock import FileLock, Timeout

from ckfr_helpers.runtime import CkfrError

CONNECT, SILENCE = 10, 60  # seconds until an address, or a connection, counts as dead


@contextlib.contextmanager
def working_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` (same file system) for one process at a time, gone afterwards.

    Build the result in it and rename it to ``target`` at the end. What a killed call left behind is removed
    by the next one.

    Raises:
        CkfrError: if another process is at it, or the folder cannot be written.
    """
    scratch = target.parent / f".{target.name}.unfinished"
    lock = FileLock(f"{scratch}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
    except Timeout as error:
        raise CkfrError(f"Another process is fetching {target}; wait for it, or stop it.") from error
    except OSError as error:
        raise CkfrError(f"{target} cannot be written ({error}); --root names another folder.") from error
    try:
        yield scratch
    except OSError as error:  # a full disk, or something of another kind where the result belongs
        raise CkfrError(f"{target} could not be put in place ({error}).") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held, so that nobody else's is removed
        lock.release()


def download(url: str, target: Path, checksum: str) -> Path:
    """Download one file with a progress bar; it takes its name only once its checksum is right.

    Args:
        url: http or https.
        target: where to put it; a file that already has the checksum is left as it is.
        checksum: ``"md5:…"`` or ``"sha256:…"``.

    Raises:
        CkfrError: if the server does not answer within `CONNECT` seconds, refuses, breaks off twice, or sends
            something else.
    """
    pooch.get_logger().setLevel("WARNING")
    fetcher = pooch.create(
        target.parent,
        base_url="",
        registry={target.name: checksum},
        urls={target.name: url},
        retry_if_failed=1,
    )
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=(CONNECT, SILENCE))
    try:
        fetcher.fetch(target.name, downloader=downloader)
    except requests.ConnectionError as error:
        raise CkfrError(f"{url} cannot be reached ({_innermost(error)}).") from error
    except (requests.RequestException, ValueError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise CkfrError(f"{url} could not be downloaded ({reason}).") from error
    return target


def download_archive(url: str, folder: Path, checksum: str) -> Path:
    """Download a zip or tar that holds a folder of this name, and unpack it there.

    Raises:
        CkfrError: as `download` and `unpack` do.
    """
    with working_folder(folder) as scratch:
        archive = download(url, scratch / url.split("/")[-1], checksum)
        (unpack(archive, scratch / "content") / folder.name).rename(folder)
    return folder


def _innermost(error: BaseException) -> str:
    """What the operating system said, out of requests' nest of errors."""
    while (inner := error.__context__ or getattr(error, "reason", None)) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip or tar, which a checksum has shown to be the publisher's, into a new folder.

    Raises:
        CkfrError: if it cannot be unpacked, e.g. because the disk is full.
    """
    # Python 3.11.2, which Debian 12 ships, has no filter yet; from 3.12 on its absence is deprecated.
    safe = {"filter": "data"} if hasattr(tarfile, "data_filter") and tarfile.is_tarfile(archive) else {}
    try:
        shutil.unpack_archive(archive, folder, **safe)  # type: ignore[arg-type]
    except (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise CkfrError(f"{archive} cannot be unpacked ({error}).") from error
    return folder
