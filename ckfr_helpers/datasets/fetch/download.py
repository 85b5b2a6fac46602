"""Downloads that show progress, resume, and are either complete and verified or not there at all.

Pooch, which this project uses for small single files, begins again from nothing after a broken connection;
for archives of hundreds of megabytes that is the difference between a nuisance and a lost evening.
"""

import contextlib
import hashlib
import http.client
import lzma
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from ckfr_helpers.runtime import CkfrError

_CHUNK = 1 << 20


def file_hash(path: str | Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file, read in pieces."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def download(
    url: str,
    target: str | Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    attempts: int = 4,
    timeout: float = 20.0,
    progress: bool = True,
    headers: Mapping[str, str] | None = None,
    label: str | None = None,
) -> Path:
    """Download one file, resuming where an earlier attempt broke off if the server can.

    Bytes arrive in ``<target>.part``, which survives an interruption; the file takes its name only once its
    length and checksum are right. A target that already has the right checksum is left as it is.

    Args:
        url: http or https (or file).
        target: where to put it.
        md5: expected digest, for publishers who give no better one; it guards against damage, not malice.
        sha256: expected digest. At least one of the two is needed.
        attempts: times to ask before giving up.
        timeout: seconds without a byte before an attempt counts as broken.
        progress: whether to show a bar.
        headers: sent to the address itself, never to one it redirects to: a login belongs to one host.
        label: what the bar calls the file; its name where None.

    Returns:
        ``target``.

    Raises:
        CkfrError: if no checksum is given, the server refuses, the connection keeps breaking, or the content
            is not what was expected.
    """
    target = Path(target)
    algorithm, expected = ("sha256", sha256) if sha256 else ("md5", md5)
    if not expected:
        raise CkfrError(f"Downloading {url} needs a checksum; give md5 or sha256.")
    expected = expected.lower()
    if target.is_file() and file_hash(target, algorithm) == expected:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    trouble = ""
    for _ in range(attempts):
        resumed = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, timeout, progress, label or target.name, headers or {})
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:  # asking again will not change the answer
                raise CkfrError(
                    f"{url} answered {error.code} {error.reason}; nothing was downloaded."
                ) from error
            trouble = f"the server answered {error.code} {error.reason}"
            continue
        except (OSError, http.client.HTTPException) as error:
            trouble = str(getattr(error, "reason", "") or error) or type(error).__name__
            continue
        found = file_hash(part, algorithm)
        if found == expected:
            part.replace(target)
            return target
        part.unlink()
        trouble = f"its {algorithm} is {found}, expected {expected}"
        if not resumed:
            break  # whole and still wrong: the file there is another one
        # The beginning may have come from an older version of the file: once more, from the first byte.
    kept = f"; {part.stat().st_size} bytes are kept, and asking again resumes" if part.exists() else ""
    raise CkfrError(f"{url} could not be downloaded to {target}: {trouble}{kept}.")


def _receive(
    url: str, part: Path, timeout: float, progress: bool, label: str, headers: Mapping[str, str]
) -> None:
    """Append the rest of ``url`` to ``part``, or write all of it where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "ckfr-helpers"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing after our last byte: complete, or not the same file; hash it
            return
        raise
    with response:
        continues = response.status == 206 and _starts_at(response.headers.get("Content-Range"), have)
        if not continues:
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with (
            open(part, "ab" if continues else "wb") as file,
            tqdm(
                total=total, initial=have, unit="B", unit_scale=True, desc=label, disable=not progress
            ) as bar,
        ):
            while block := response.read(_CHUNK):
                file.write(block)
                bar.update(len(block))
    size = part.stat().st_size
    if total is not None and size < total:
        raise ConnectionError(f"the connection closed after {size} of {total} bytes")


def _starts_at(content_range: str | None, offset: int) -> bool:
    """Whether ``"bytes 100-199/200"`` begins at ``offset``."""
    return content_range is not None and content_range.removeprefix("bytes ").startswith(f"{offset}-")


def extract(archive: str | Path, target: str | Path, inner: str | None = None) -> Path:
    """Unpack a zip or tar into a folder that appears only when it is complete.

    Args:
        archive: a ``.zip``, or anything Python's ``tarfile`` opens.
        target: the folder to make; it must not exist yet.
        inner: a folder of the archive to take instead of everything.

    Returns:
        ``target``.

    Raises:
        CkfrError: if the target exists, the archive is damaged or would write outside the folder, or it has
            no ``inner``.
    """
    archive, target = Path(archive), Path(target)
    if target.exists():
        raise CkfrError(f"{target} is there already; move it away to unpack {archive.name} again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target) as scratch:
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as file:
                    file.extractall(scratch)  # zipfile itself strips drives, roots and ".." from names
            else:
                _unpack_tar(archive, scratch)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise CkfrError(
                f"{archive} cannot be unpacked ({error}); delete it and fetch it again."
            ) from error
        source = scratch / inner if inner else scratch
        if not source.is_dir():
            raise CkfrError(f"{archive} has no folder {inner!r}; it is not the archive that was expected.")
        source.rename(target)
    return target


def _unpack_tar(archive: Path, folder: Path) -> None:
    """Regular files only; tarfile's own filter is missing from the Python 3.11.2 that Debian 12 ships."""
    with tarfile.open(archive) as file:
        for member in file:
            place = (folder / member.name).resolve()
            if not place.is_relative_to(folder.resolve()):
                raise CkfrError(
                    f"{archive} holds {member.name!r}, a path outside the folder it is unpacked to."
                )
            if member.isfile():
                place.parent.mkdir(parents=True, exist_ok=True)
                with file.extractfile(member) as source, open(place, "wb") as copy:  # type: ignore[union-attr]
                    shutil.copyfileobj(source, copy)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A scratch folder on the same file system as ``target``, gone afterwards whatever happens."""
    target.parent.mkdir(parents=True, exist_ok=True)
    outer = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    scratch = outer / "content"  # mkdtemp's folder is private; this one gets ordinary permissions
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(outer)
