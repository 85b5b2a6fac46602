"""What every `ckfr fetch` shares: verified downloads, and a working place that never looks like a result."""

import contextlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pooch
import requests
from filelock import FileLock, Timeout

from ckfr_helpers.runtime import CkfrError

CONNECT, SILENCE = 10, 60  # seconds until an address, or a connection, counts as dead


@contextlib.contextmanager
def working_folder(target: Path, wait: bool = False) -> Iterator[Path]:
    """An empty folder beside ``target`` (same file system) for one process at a time, gone afterwards.

    Build the result in it and rename it to ``target`` at the end. What a killed call left behind is removed
    by the next one. A `CkfrError` says that another process is at it, unless ``wait``, or that the folder
    cannot be written.
    """
    scratch = target.parent / f".{target.name}.unfinished"
    lock = FileLock(f"{scratch}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
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

    A file that already has the ``checksum``, ``"md5:…"`` or ``"sha256:…"``, is left as it is. A `CkfrError`
    says that the server does not answer, refuses, breaks off twice, or sends something else.
    """
    pooch.get_logger().setLevel("WARNING")
    files = {"registry": {target.name: checksum}, "urls": {target.name: url}}
    fetcher = pooch.create(target.parent, base_url="", retry_if_failed=1, **files)
    try:
        fetcher.fetch(target.name, None, pooch.HTTPDownloader(progressbar=True, timeout=(CONNECT, SILENCE)))
    except requests.ConnectionError as error:  # whose own text is a nest of its causes
        raise CkfrError(f"{url} cannot be reached ({type(error).__name__}).") from error
    except (requests.RequestException, ValueError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise CkfrError(f"{url} could not be downloaded ({reason}).") from error
    return target


def download_archive(url: str, folder: Path, checksum: str) -> Path:
    """Download a zip or tar that holds a folder of this name, and unpack it there; errors as `download`."""
    with working_folder(folder) as scratch:
        archive = download(url, scratch / url.split("/")[-1], checksum)
        (unpack(archive, scratch / "content") / folder.name).rename(folder)
    return folder


def download_archives(archives: Mapping[str, str], folder: Path, inside: str = "") -> Path:
    """Download several archives that unpack into one another, and move what lies ``inside`` to ``folder``.

    ``archives`` gives the checksum of each URL. They lie beside ``folder`` until all is in place, so that a
    later call after an interruption goes on with the next one; errors as `download`.
    """
    kept = folder.with_name(f".{folder.name}.archives")
    with working_folder(folder) as scratch:
        if folder.exists():
            raise CkfrError(f"{folder} is there already, but not whole; move it away.")
        kept.mkdir(exist_ok=True)
        for url, checksum in archives.items():
            unpack(download(url, kept / url.split("/")[-1], checksum), scratch / "content")
        (scratch / "content" / inside).rename(folder)
    shutil.rmtree(kept)
    return folder


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip or tar, which a checksum has shown to be the publisher's, into a folder."""
    # Python 3.11.2, which Debian 12 ships, has no filter yet; from 3.12 on its absence is deprecated.
    safe = {"filter": "data"} if hasattr(tarfile, "data_filter") and tarfile.is_tarfile(archive) else {}
    try:
        shutil.unpack_archive(archive, folder, **safe)  # type: ignore[arg-type]
    except (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise CkfrError(f"{archive} cannot be unpacked ({error}).") from error
    return folder
