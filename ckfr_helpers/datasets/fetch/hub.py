"""mini-ImageNet from a public copy on the Hugging Face Hub, brought into the original demo's folder layout.

The copy is ``timm/mini-imagenet``: parquet shards (7.4 GB) that hold the JPEG files as they are, at their
original sizes, labelled by WordNet id. Its splits are by picture, not by class: *train* has 500 and
*validation* 100 of ImageNet's training pictures of each of the 100 classes, *test* the 50 of ImageNet's own
validation set. Here they become the three files of few-shot learning, split by class (64 + 16 + 20; Ravi and
Larochelle, 2017): every class has its 500 pictures of *train*, then its 100 of *validation*; *test* is
neither downloaded nor needed. So ``MiniImageNet`` finds 600 pictures a class, a few-shot learner its classes.

Which 600 of a class's 1300 or so ImageNet pictures the copy holds is not the demo's choice (its card says
that its origin is not known). The classes are the original's, and so are the numbers; the pictures need not
be: scores stand beside the demo's, they do not repeat them.

The library lists the files, their sizes and sha256; the bytes come through this package's `download`, because
the library's own (2.4) throws away a file that broke off, and does not compare checksums.
"""

import csv
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from ckfr_helpers.datasets.fetch.download import download
from ckfr_helpers.datasets.sources.mini_imagenet_classes import ALL_CLASSES, CLASSES_OF
from ckfr_helpers.runtime import CkfrError, atomic_path

REPO = "timm/mini-imagenet"
REVISION = "main"  # resolved to a commit, which is written down beside the pictures
PER_CLASS = 600
# In this order, and the next one only where the ones before it do not yet fill every class.
SPLITS = ("train", "validation", "test")
_WNID = re.compile(r"n\d{8}")
_SPLIT_IN_PATH = re.compile(r"(?:^|[/_-])(train|validation|valid|val|test)(?=[/_.-])")


class Shard(NamedTuple):
    """One parquet file of a hub repository, at one commit."""

    path: str
    split: str
    url: str
    size: int
    sha256: str


def fetch_from_hub(folder: Path, repo: str = REPO, revision: str = REVISION, progress: bool = True) -> Path:
    """Download a parquet copy of mini-ImageNet and bring it into the original demo's folder layout.

    Everything is gathered in ``.<folder>.unfinished`` beside the folder, which takes its name once all 100
    classes have their 600 pictures. Interrupted, a later call keeps the shards already converted and resumes
    the one that was being downloaded. A shard is deleted when its pictures are out.

    Args:
        folder: what to make; it must not exist, or be empty. If it is a link, the folder it points to is
            made, with everything gathered beside that one, and the link stays.
        repo: a data set repository on the hub with parquet shards of encoded pictures and WordNet ids.
        revision: branch, tag or commit.
        progress: show bars.

    Returns:
        ``folder``.

    Raises:
        CkfrError: if a library is missing, the repository cannot be reached, a shard is not what its checksum
            says, the disk is too small, the folder cannot be written or put in its place, or the pictures
            are not mini-ImageNet's classes with 600 each.
    """
    place = _place_of(folder)
    commit, shards = list_shards(repo, revision)
    work = place.with_name(f".{place.name}.unfinished")
    with _in_a_sentence(work), _alone(work):
        rows: list[tuple[str, str]] = []
        used: list[Shard] = []
        for split in SPLITS:
            if _is_full(rows):
                break
            chosen = [shard for shard in shards if shard.split == split]
            _check_space(work, chosen)
            for shard in tqdm(chosen, desc=f"{split} shards", unit="shard", disable=not progress):
                rows += _converted(work, shard, shards.index(shard), progress)
                used.append(shard)
        _check_rows(rows, repo)
        _write_tables(work, rows)
        _drop_strays(work / "images", {name for name, _ in rows})
        record = {"repo": repo, "commit": commit, "shards": {shard.path: shard.sha256 for shard in used}}
        with atomic_path(work / "source.json") as path:
            path.write_text(json.dumps(record, indent=1) + "\n")
        _put_in_place(work, place)
    return folder


def _place_of(folder: Path) -> Path:
    """Where the folder really lies, links followed, after a look whether a new folder can go there at all."""
    place = Path(os.path.realpath(folder))
    if place.is_symlink():
        raise CkfrError(f"{folder} is a link that leads back to itself; remove it, then fetch again.")
    if os.path.ismount(place):
        raise CkfrError(
            f"{place} is a mount point, which the finished folder cannot replace; make {folder} a link to an "
            f"empty folder inside it, or give --root {place}, here and wherever the pictures are used."
        )
    return place


def _put_in_place(work: Path, place: Path) -> None:
    """Give the finished folder its name.

    Only then do the notes go of what was converted: whatever fails or is stopped before, they save the next
    call every download; and what is left of them afterwards is in nobody's way.
    """
    try:
        if place.is_dir():
            place.rmdir()  # refuses if it is not empty; not every system moves a folder onto an empty one
        work.rename(place)
    except OSError as error:
        raise CkfrError(
            f"mini-ImageNet is whole in {work}, but could not be moved to {place} ({error}); move away what "
            "is there and fetch again: nothing is downloaded twice."
        ) from error
    for scratch in ("shards", "done"):
        shutil.rmtree(place / scratch, ignore_errors=True)


@contextmanager
def _in_a_sentence(work: Path) -> Iterator[None]:
    """What the file system refuses, as the user's error."""
    try:
        yield
    except OSError as error:
        raise CkfrError(
            f"mini-ImageNet could not be written to {work} ({error}); see that there is room, and that you "
            "may write there, and fetch again: what has arrived is kept."
        ) from error


def list_shards(repo: str, revision: str = REVISION) -> tuple[str, list[Shard]]:
    """The commit a revision stands for, and the repository's parquet shards at that commit, by path.

    ``$HF_ENDPOINT`` names another hub (a mirror); the library's own login is used where there is one.

    Raises:
        CkfrError: if a library is missing, the repository cannot be had, or it holds no such shards.
    """
    hub = _libraries()[0]
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        info = hub.HfApi(endpoint=endpoint).dataset_info(
            repo, revision=revision, files_metadata=True, timeout=20
        )
    except Exception as error:  # the errors are those of whichever HTTP client the library uses
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        closed = any(word in str(error) for word in ("401", "403", "gated"))
        raise CkfrError(
            f"The data set {repo} at {revision} cannot be had from the hub: {reason.rstrip('.')}."
            + (" If its page asks for consent, give it there and log in with `hf auth login`." * closed)
        ) from error
    shards = []
    for file in info.siblings or ():
        found = _SPLIT_IN_PATH.findall(file.rfilename)
        if not file.rfilename.endswith(".parquet") or not found:
            continue
        if file.lfs is None or file.size is None:
            raise CkfrError(
                f"The hub gives no checksum for {file.rfilename} of {repo}; nothing was downloaded."
            )
        split = "validation" if found[-1].startswith("val") else found[-1]
        url = hub.hf_hub_url(repo, file.rfilename, repo_type="dataset", revision=info.sha, endpoint=endpoint)
        shards.append(Shard(file.rfilename, split, url, file.size, file.lfs["sha256"]))
    if not shards:
        raise CkfrError(
            f"The data set {repo} at {revision} holds no parquet files named after train, validation or "
            f"test; expected shards as {REPO} has them."
        )
    return info.sha, sorted(shards)


def _libraries() -> tuple[Any, Any]:
    try:
        import huggingface_hub
        import pyarrow.parquet
    except ImportError as error:
        raise CkfrError(
            "Fetching mini-ImageNet needs huggingface_hub and pyarrow, and one of them is missing; "
            f"`pip install 'ckfr-helpers[hub]'` brings both ({error})."
        ) from error
    return huggingface_hub, pyarrow.parquet


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the unfinished folder against a second process that fetches the same."""
    from filelock import FileLock, Timeout

    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work.with_name(work.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CkfrError(f"Another process is fetching into {work}; wait for it, or stop it.") from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held, so that nobody else's is removed
        lock.release()


def _check_space(work: Path, shards: list[Shard]) -> None:
    """A full disk after six of seven gigabytes is an evening lost; ask before."""
    missing = [shard.size for shard in shards if not list((work / "done").glob(f"*-{shard.sha256[:16]}.csv"))]
    needed = sum(missing) + max(missing, default=0)  # pictures as large as their shards, and one shard
    free = shutil.disk_usage(work).free
    if free < needed:
        raise CkfrError(
            f"The disk of {work.parent} has {free / 1e9:.1f} GB free; mini-ImageNet needs "
            f"{needed / 1e9:.1f} GB more. Make room, or name another place with --root."
        )


def _converted(work: Path, shard: Shard, number: int, progress: bool) -> list[tuple[str, str]]:
    """File names and WordNet ids of one shard's pictures, which then lie in ``images/``."""
    done = work / "done" / f"{number:03}-{shard.sha256[:16]}.csv"
    if done.is_file():
        with open(done, newline="") as file:
            return [(name, wnid) for name, wnid in csv.reader(file)]
    local = download(
        shard.url,
        work / "shards" / f"{shard.sha256}.parquet",
        sha256=shard.sha256,
        headers=_login(),
        progress=progress,
        label=shard.path,
    )
    rows = []
    (work / "images").mkdir(exist_ok=True)
    for position, (data, wnid) in enumerate(read_shard(local, shard.path)):
        if wnid not in ALL_CLASSES:
            raise CkfrError(
                f"{shard.path} holds a picture of class {wnid}, which is none of mini-ImageNet's "
                f"{len(ALL_CLASSES)}; nothing of it was put in place."
            )
        name = f"{wnid}{number:03}{position:05}.jpg"  # eight digits, as the original's names have
        (work / "images" / name).write_bytes(_as_jpeg(data, f"{shard.path}, row {position}"))
        rows.append((name, wnid))
    with atomic_path(done) as path, open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    local.unlink()
    return rows


def _login() -> dict[str, str]:
    token = _libraries()[0].get_token()
    return {"Authorization": f"Bearer {token}"} if token else {}


def read_shard(path: Path, title: str) -> Iterator[tuple[bytes, str]]:
    """Encoded picture and WordNet id of every row of a parquet shard, a few hundred rows in memory at a time.

    Args:
        path: a parquet file as the ``datasets`` library writes it: a column of pictures (``bytes``, ``path``)
            and one of labels, whose names stand in the file's own metadata; or labels that are strings.
        title: what to call it if it is not.

    Raises:
        CkfrError: if a column is missing, a label is no WordNet id, or the file is damaged.
    """
    parquet = _libraries()[1]
    try:
        with parquet.ParquetFile(path) as file:
            features = _features(file.schema_arrow.metadata)
            image = _column(features, "Image", "image")
            label = _column(features, "ClassLabel", "label")
            for column in (image, label):
                if column not in file.schema_arrow.names:
                    raise CkfrError(
                        f"{title} has the columns {', '.join(file.schema_arrow.names)}; expected {column}."
                    )
            names = features.get(label, {}).get("names")
            for batch in file.iter_batches(batch_size=256, columns=[image, label]):
                for picture, mark in zip(
                    batch.column(image).to_pylist(), batch.column(label).to_pylist(), strict=True
                ):
                    wnid = names[mark] if names and isinstance(mark, int) and 0 <= mark < len(names) else mark
                    if not isinstance(wnid, str) or not _WNID.fullmatch(wnid):
                        raise CkfrError(
                            f"{title} labels a picture {wnid!r}; expected a WordNet id such as n01532829."
                        )
                    data = picture.get("bytes") if isinstance(picture, dict) else picture
                    if not isinstance(data, bytes):
                        raise CkfrError(f"{title} holds a row without the bytes of its picture.")
                    yield data, wnid
    except (OSError, ValueError) as error:  # pyarrow's own errors are both
        if isinstance(error, CkfrError):
            raise
        raise CkfrError(f"{title} is not a readable parquet file ({error}).") from error


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """What the ``datasets`` library wrote about the columns; nothing where another program made the file."""
    try:
        return json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, json.JSONDecodeError):
        return {}


def _column(features: dict[str, dict[str, Any]], kind: str, usual: str) -> str:
    found = [name for name, feature in features.items() if feature.get("_type") == kind]
    return found[0] if found else usual


def _as_jpeg(data: bytes, where: str) -> bytes:
    """A JPEG as it is; any other picture, which the layout has no place for, encoded at quality 95."""
    if data[:3] == b"\xff\xd8\xff":
        return data
    try:
        with Image.open(io.BytesIO(data)) as picture:
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "JPEG", quality=95)
    except (OSError, SyntaxError, ValueError) as error:
        raise CkfrError(f"The picture in {where} cannot be decoded ({error}).") from error
    return buffer.getvalue()


def _is_full(rows: list[tuple[str, str]]) -> bool:
    counts = Counter(wnid for _, wnid in rows)
    return all(counts[wnid] >= PER_CLASS for wnid in ALL_CLASSES)


def _check_rows(rows: list[tuple[str, str]], repo: str) -> None:
    counts = Counter(wnid for _, wnid in rows)
    odd = sorted(wnid for wnid in ALL_CLASSES if counts[wnid] != PER_CLASS)
    if odd:
        raise CkfrError(
            f"{repo} has {counts[odd[0]]} pictures of class {odd[0]}; expected {PER_CLASS} of each of "
            f"mini-ImageNet's {len(ALL_CLASSES)} classes."
        )


def _write_tables(work: Path, rows: list[tuple[str, str]]) -> None:
    for table, classes in CLASSES_OF.items():
        with atomic_path(work / table) as path, open(path, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("filename", "label"))
            order = {wnid: place for place, wnid in enumerate(sorted(classes))}
            # Stable: within a class the pictures stay in the order of the shards.
            writer.writerows(sorted((row for row in rows if row[1] in order), key=lambda row: order[row[1]]))


def _drop_strays(images: Path, listed: set[str]) -> None:
    """Remove pictures of a shard that a newer commit replaced between two calls."""
    for path in images.iterdir():
        if path.name not in listed:
            path.unlink()
