"""mini-ImageNet from a public copy on the Hugging Face Hub, brought into the original demo's folder layout.

The copy is ``timm/mini-imagenet``: parquet shards (7.4 GB) that hold the JPEG files as they are, at their
original sizes, labelled by WordNet id. Its splits are by picture, not by class: *train* has 500 and
*validation* 100 of ImageNet's training pictures of each of the 100 classes, *test* the 50 of ImageNet's own
validation set. Here they become the three files of few-shot learning, split by class (64 + 16 + 20; Ravi and
Larochelle, 2017): every class has its 500 pictures of *train*, then its 100 of *validation*; *test* is
neither downloaded nor needed.

Which 600 of a class's 1300 or so ImageNet pictures the copy holds is not the demo's choice (its card says
that its origin is not known). The classes are the original's, and so are the numbers; the pictures need not
be: scores stand beside the demo's, they do not repeat them.
"""

import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from ckfr_helpers.datasets.sources.mini_imagenet import FOLDER, PLACEMENT, MiniImageNet, find_place
from ckfr_helpers.datasets.sources.mini_imagenet_classes import CLASSES_OF
from ckfr_helpers.runtime import CkfrError, atomic_path, data_root

REPO = "timm/mini-imagenet"
PER_CLASS = 600
# In this order, and the next one only where the ones before it do not yet fill every class.
SPLITS = ("train", "validation", "test")
_SPLIT_IN_PATH = re.compile(r"(?:^|[/_-])(train|validation|valid|val|test)(?=[/_.-])")

Row = tuple[str, str]  # a picture's file name and its WordNet id


def fetch(root: str | Path | None = None, repo: str = REPO, revision: str = "main") -> Path:
    """Bring mini-ImageNet from the Hugging Face Hub; do nothing if it is here in any of its layouts.

    The folder is mini-ImageNet only once ``train.csv`` stands in it, which is written last. Interrupted, a
    later call keeps the shards already unpacked; a shard is deleted when its pictures are out.

    Args:
        root: folder to put ``mini-imagenet/`` in; None for ``data_root()``.
        repo: a data set repository with parquet shards of encoded pictures and WordNet ids. ``$HF_ENDPOINT``
            names another hub; the library's own login is used where there is one.
        revision: branch, tag or commit of it.

    Returns:
        The folder.

    Raises:
        CkfrError: if what is here is not whole, a library is missing, the repository or the disk cannot be
            used, a shard is not what its checksum says, or the pictures are not 600 of each of the classes.
    """
    place = find_place(root)
    if place is not None:
        MiniImageNet("test", root=place)  # complains of whatever is missing
        return place
    folder = (Path(root).expanduser() if root is not None else data_root()) / FOLDER
    work = Path(os.path.realpath(folder)) / ".unfinished"  # a link may point where nothing is yet
    if folder.exists() and not work.is_dir() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CkfrError(
            f"{folder} is there already but holds mini-ImageNet in no layout known here; move it away, or "
            f"{PLACEMENT.split('; or ')[1]}."
        )
    print(
        "mini-ImageNet is made of ImageNet's pictures: whoever downloads them accepts ImageNet's terms "
        "(research and teaching, not commerce; image-net.org/download).",
        file=sys.stderr,
    )
    api, commit, shards = _list_shards(repo, revision)
    with _alone(work):
        rows: list[Row] = []
        for split in SPLITS:
            if not _odd_classes(rows):
                break
            own = [pair for pair in enumerate(shards) if _split_of(pair[1].rfilename) == split]
            _check_space(work, own)
            for number, shard in tqdm(own, desc=f"{split} shards", unit="shard"):
                rows += _pictures_of(number, shard, api, repo, commit, work)
        for wnid, count in _odd_classes(rows):
            raise CkfrError(f"{repo} has {count} pictures of class {wnid}; expected {PER_CLASS} of each.")
        (folder / "source.json").write_text(json.dumps({"repo": repo, "commit": commit}) + "\n")
        for table in reversed(CLASSES_OF):  # train.csv, by which the folder is known, comes last
            _write_table(folder / table, rows, CLASSES_OF[table])
    shutil.rmtree(work, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the folder against a second process; what the file system refuses becomes the user's error."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / "lock", timeout=0):
            yield
    except Timeout as error:
        raise CkfrError(
            f"Another process is fetching into {work.parent}; wait for it, or stop it."
        ) from error
    except OSError as error:
        raise CkfrError(
            f"mini-ImageNet could not be written to {work.parent} ({error}); what has arrived is kept."
        ) from error


def _list_shards(repo: str, revision: str) -> tuple[Any, str, list[Any]]:
    """The hub's client, the commit a revision stands for, and the repository's parquet shards, by path."""
    try:
        import huggingface_hub
        import pyarrow.parquet  # noqa: F401 -- asked for before anything is downloaded
    except ImportError as error:
        raise CkfrError(
            "Fetching mini-ImageNet needs huggingface_hub and pyarrow, and one of them is missing; "
            f"`pip install huggingface_hub pyarrow` brings both ({error})."
        ) from error
    api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        info = api.dataset_info(repo, revision=revision, files_metadata=True, timeout=20)
    except Exception as error:  # the errors are those of whichever HTTP client the library uses
        raise CkfrError(f"The data set {repo} at {revision} cannot be had: {_first_line(error)}.") from error
    shards = [
        file
        for file in sorted(info.siblings or (), key=lambda file: file.rfilename)
        if file.rfilename.endswith(".parquet") and _split_of(file.rfilename)
    ]
    for shard in shards:
        if shard.lfs is None or shard.size is None:
            raise CkfrError(f"The hub gives no checksum for {shard.rfilename} of {repo}.")
    if not shards:
        raise CkfrError(
            f"The data set {repo} at {revision} holds no parquet files named after train, validation or "
            f"test; expected shards as {REPO} has them."
        )
    return api, str(info.sha), shards


def _split_of(path: str) -> str | None:
    found = _SPLIT_IN_PATH.findall(path)
    return ("validation" if found[-1].startswith("val") else found[-1]) if found else None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")


def _note_of(work: Path, number: int, shard: Any) -> Path:
    """Where the pictures of a shard are listed once they lie in ``images/``."""
    return work / f"{number:03}-{shard.lfs['sha256'][:16]}.csv"


def _check_space(work: Path, shards: list[tuple[int, Any]]) -> None:
    """A full disk after six of seven gigabytes is an evening lost; ask before."""
    missing = [shard.size for number, shard in shards if not _note_of(work, number, shard).is_file()]
    needed = sum(missing) + max(missing, default=0)  # pictures as large as their shards, and one shard
    free = shutil.disk_usage(work).free
    if free < needed:
        raise CkfrError(
            f"The disk of {work.parent} has {free / 1e9:.1f} GB free; mini-ImageNet needs "
            f"{needed / 1e9:.1f} GB more. Make room, or name another place with --root."
        )


def _pictures_of(number: int, shard: Any, api: Any, repo: str, commit: str, work: Path) -> list[Row]:
    """File names and WordNet ids of one shard's pictures, which then lie in ``images/``."""
    note = _note_of(work, number, shard)
    if not note.is_file():
        place = {"repo_type": "dataset", "revision": commit, "local_dir": work / "shards"}
        try:
            local = Path(api.hf_hub_download(repo, shard.rfilename, **place))
        except Exception as error:
            raise CkfrError(f"{shard.rfilename} could not be downloaded: {_first_line(error)}.") from error
        with open(local, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()  # the library compares sizes only
        if found != shard.lfs["sha256"]:
            shutil.rmtree(work / "shards")
            raise CkfrError(f"{shard.rfilename} arrived with sha256 {found}; expected {shard.lfs['sha256']}.")
        (work.parent / "images").mkdir(exist_ok=True)
        rows = []
        for position, (data, wnid) in enumerate(read_shard(local, shard.rfilename)):
            rows.append((f"{wnid}{number:03}{position:05}.jpg", wnid))  # eight digits, as the original has
            (work.parent / "images" / rows[-1][0]).write_bytes(data)
        with atomic_path(note) as path, open(path, "w", newline="") as table:
            csv.writer(table).writerows(rows)
        local.unlink()
    with open(note, newline="") as table:
        return [(name, wnid) for name, wnid in csv.reader(table)]


def read_shard(path: Path, title: str) -> Iterator[tuple[bytes, str]]:
    """Encoded picture and WordNet id of every row of a parquet shard, a few hundred rows in memory at a time.

    Args:
        path: a parquet file as the ``datasets`` library writes it: a column of pictures (``bytes``, ``path``)
            and one of labels, whose names stand in the file's own metadata; or labels that are strings.
        title: what to call it if it is not.

    Raises:
        CkfrError: if a column is missing, a class is none of mini-ImageNet's, or the file is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    classes = {wnid for table in CLASSES_OF.values() for wnid in table}
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            about = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
            names = about.get("info", {}).get("features", {}).get("label", {}).get("names")
            for batch in file.iter_batches(batch_size=256, columns=["image", "label"]):
                for row in batch.to_pylist():
                    wnid = names[row["label"]] if names else row["label"]
                    if wnid not in classes:
                        raise CkfrError(
                            f"{title} labels a picture {wnid!r}; expected the WordNet id of one of mini-"
                            f"ImageNet's {len(classes)} classes, such as n01532829."
                        )
                    yield row["image"]["bytes"], wnid
    except (pyarrow.ArrowException, KeyError, IndexError, TypeError) as error:
        raise CkfrError(f"{title} is no parquet file of pictures and labels ({error}).") from error


def _odd_classes(rows: list[Row]) -> list[tuple[str, int]]:
    """Classes that have other than 600 pictures, with their number."""
    counts = Counter(wnid for _, wnid in rows)
    wnids = sorted(wnid for classes in CLASSES_OF.values() for wnid in classes)
    return [(wnid, counts[wnid]) for wnid in wnids if counts[wnid] != PER_CLASS]


def _write_table(target: Path, rows: list[Row], classes: tuple[str, ...]) -> None:
    with atomic_path(target) as path, open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("filename", "label"))
        for wnid in sorted(classes):  # within a class the pictures stay in the order of the shards
            writer.writerows(row for row in rows if row[1] == wnid)
