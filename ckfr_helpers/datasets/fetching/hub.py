"""mini-ImageNet from a public copy on the Hugging Face Hub, brought into the original demo's folder layout.

The copy is ``timm/mini-imagenet``: parquet shards (7.4 GB) that hold the JPEG files as they are, at their
original sizes, labelled by WordNet id. Its splits are by picture, not by class: *train* has 500 and
*validation* 100 of ImageNet's training pictures of each of the 100 classes. Here they become the three files
of few-shot learning, split by class (64 + 16 + 20; Ravi and Larochelle, 2017): every class has its 500
pictures of *train*, then its 100 of *validation*. The copy's *test* is not needed.

Which 600 of a class's 1300 or so ImageNet pictures the copy holds is not the demo's choice (its card says
that its origin is not known), so scores stand beside the demo's, they do not repeat them.
"""

import csv
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ckfr_helpers.datasets.fetching.download import working_folder
from ckfr_helpers.datasets.files import root_folder
from ckfr_helpers.datasets.sources.mini_imagenet import FOLDER, PER_CLASS, MiniImageNet, find_place
from ckfr_helpers.datasets.sources.mini_imagenet_classes import CLASSES_OF
from ckfr_helpers.runtime import CkfrError

REPO = "timm/mini-imagenet"
SPLITS = ("train", "validation")


def fetch(root: str | Path | None = None, repo: str = REPO, revision: str = "main") -> Path:
    """Bring mini-ImageNet from the Hugging Face Hub; do nothing if it is here in either of its layouts.

    Interrupted, a later call keeps the shards that have arrived; in the end they are deleted.

    Args:
        root: folder to put ``mini-imagenet/`` in; None for ``data_root()``. It needs 15 GB for a while.
        repo: a data set repository built like ``timm/mini-imagenet``. ``$HF_ENDPOINT`` names another hub; the
            library's own login is used where there is one.
        revision: branch, tag or commit of it.

    Raises:
        CkfrError: if what is here is not whole, a library is missing, the repository or the disk cannot be
            used, a shard is not what its checksum says, or the pictures are not 600 of each of the classes.
    """
    place = find_place(root)
    if place is not None:
        MiniImageNet("test", root=place)  # complains of whatever is missing
        return place
    folder = root_folder(root) / FOLDER
    if folder.exists() and any(folder.iterdir()):
        raise CkfrError(
            f"{folder} is there already but holds mini-ImageNet in no layout known here; move it away."
        )
    print(
        "mini-ImageNet is made of ImageNet's pictures: whoever downloads them accepts ImageNet's terms "
        "(research and teaching, not commerce; image-net.org/download).",
        file=sys.stderr,
    )
    shards = folder.with_name(f".{FOLDER}.shards")
    with working_folder(folder) as scratch:
        (scratch / "images").mkdir()
        rows: list[tuple[str, str]] = []  # a picture's file name and its WordNet id
        for number, shard in enumerate(_download(repo, revision, shards)):
            for position, (data, wnid) in enumerate(_read(shard)):
                rows.append(
                    (f"{wnid}{number:03}{position:05}.jpg", wnid)
                )  # eight digits, as the original has
                (scratch / "images" / rows[-1][0]).write_bytes(data)
        counts = Counter(wnid for _, wnid in rows)
        for table, classes in CLASSES_OF.items():
            for wnid in classes:
                if counts[wnid] != PER_CLASS:
                    raise CkfrError(
                        f"{repo} has {counts[wnid]} pictures of class {wnid}; expected {PER_CLASS}."
                    )
            with open(scratch / table, "w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("filename", "label"))
                for wnid in sorted(classes):  # within a class the pictures stay in the order of the shards
                    writer.writerows(row for row in rows if row[1] == wnid)
        scratch.rename(folder)
    shutil.rmtree(shards)
    return folder


def _download(repo: str, revision: str, folder: Path) -> list[Path]:
    """The repository's shards of train, then of validation, each held against the hub's checksum."""
    try:
        import huggingface_hub
        import pyarrow.parquet  # noqa: F401 -- asked for before anything is downloaded
    except ImportError as error:
        raise CkfrError(
            "Fetching mini-ImageNet needs huggingface_hub and pyarrow, and one of them is missing; "
            f"`pip install huggingface_hub pyarrow` brings both ({error})."
        ) from error
    api: Any = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    shards: list[Path] = []
    try:
        info = api.dataset_info(repo, revision=revision, files_metadata=True, timeout=20)
        files = {file.rfilename: file for file in info.siblings or () if file.rfilename.endswith(".parquet")}
        names = [name for split in SPLITS for name in sorted(files) if Path(name).name.startswith(split)]
        for name in tqdm(names, desc="shards", unit="shard"):
            place = {"repo_type": "dataset", "revision": info.sha, "local_dir": folder}
            shards.append(Path(api.hf_hub_download(repo, name, **place)))
            with open(shards[-1], "rb") as shard:
                found = hashlib.file_digest(shard, "sha256").hexdigest()  # the library compares sizes only
            if found != (expected := files[name].lfs["sha256"]):
                shards[-1].unlink()
                raise CkfrError(f"{name} arrived with sha256 {found}; expected {expected}.")
    except CkfrError:
        raise
    except Exception as error:  # the errors are those of whichever HTTP client the library uses
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise CkfrError(f"The data set {repo} at {revision} cannot be had: {reason}.") from error
    return shards


def _read(path: Path) -> Iterator[tuple[bytes, str]]:
    """Encoded picture and WordNet id of every row of a shard, a few hundred rows in memory at a time.

    The ``datasets`` library writes a column of pictures (``bytes``, ``path``) and one of labels, whose names
    stand in the file's own metadata.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            about = json.loads(file.schema_arrow.metadata[b"huggingface"])
            names = about["info"]["features"]["label"]["names"]
            for batch in file.iter_batches(batch_size=256, columns=["image", "label"]):
                for row in batch.to_pylist():
                    yield row["image"]["bytes"], names[row["label"]]
    except (pyarrow.ArrowException, KeyError, IndexError, TypeError) as error:
        raise CkfrError(f"{path.name} is no parquet file of pictures and labels ({error}).") from error
