"""mini-ImageNet with the original CKFR demo's very 80/20 split, from either layout it goes round in.

    train.csv val.csv test.csv images/*.jpg        the demo's own: columns filename,label
    n01532829/*.jpg …                              a folder a class, also below train/, val/, test/

The three parts are those of few-shot learning (64 + 16 + 20 classes of 600 pictures; Vinyals et al., 2016, in
the split of Ravi and Larochelle, 2017). The demo merges them into one 100-way data set, its classes sorted by
WordNet id, and takes 120 positions out of 600, drawn once with seed 0, as the test pictures of *every* class:
48,000 to train on, 12,000 to test. All are ImageNet training pictures, so a backbone pretrained on ImageNet
has seen the test pictures. A picture's *position* is its place among its class's pictures, read in the order
train, val, test: row by row, or by file name. The split is the demo's very one where that order is its own:
by file name it is, for files under their original names.

`fetch` makes class folders of a public copy on the Hugging Face Hub, ``timm/mini-imagenet``: parquet shards
(7.4 GB) that hold the JPEG files as they are. Which 600 of a class's 1300 or so ImageNet pictures it holds is
not the demo's choice (its card says that its origin is not known), so scores stand beside the demo's, they do
not repeat them.
"""

import json
import os
import re
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ckfr_helpers.datasets.base import SPLITS, check_split
from ckfr_helpers.datasets.fetching.download import working_folder
from ckfr_helpers.datasets.files import FileSource, class_folders, read_rows, root_folder
from ckfr_helpers.hierarchy import wordnet
from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.runtime import CkfrError

FOLDER = "mini-imagenet"
PER_CLASS = 600
REPO = "timm/mini-imagenet"
_WNID = re.compile(r"n\d{8}")

Row = tuple[str, str]  # a picture's name and its WordNet id


def held_out_positions(count: int = PER_CLASS, share: float = 0.2, seed: int = 0) -> np.ndarray:
    """Which positions within each class are test pictures, increasing; 120 of them for the demo's numbers.

    Equals the second half of ``sklearn.model_selection.train_test_split(range(600), test_size=0.2,
    random_state=0)``, sorted: sklearn takes the first ``ceil(share * count)`` of one permutation.
    """
    return np.sort(np.random.RandomState(seed).permutation(count)[: int(np.ceil(share * count))])


class MiniImageNet(FileSource):
    """One split of mini-ImageNet as the original demo splits it.

    Args:
        root: the folder in either layout, or a folder that holds ``mini-imagenet/``.
        val_fraction, seed: share of each class's training pictures that become ``"val"``, and which of them.
            The demo has no validation set; 0 gives its 48,000 training pictures exactly, the default leaves
            43,200. The test pictures never change.

    Raises:
        CkfrError: if a file or picture is missing or foreign. A class of other than 600 pictures is a
            warning: a fifth of it is then another draw than the demo's.
    """

    name = FOLDER

    def __init__(
        self, split: str, root: str | Path | None = None, val_fraction: float = 0.1, seed: int = 0
    ) -> None:
        self.split = check_split(split)
        place = find_place(root)
        if place is None:
            raise CkfrError(
                f"{FOLDER} is not here: expected {root_folder(root) / FOLDER / 'train.csv'}, val.csv, "
                "test.csv and images/, as the original demo has them, or class folders; `ckfr fetch "
                "mini-imagenet` brings it."
            )
        rows = _table_rows(place) if (place / "train.csv").is_file() else _folder_rows(place)
        classes, labels, counts = np.unique(
            [wnid for _, wnid in rows], return_inverse=True, return_counts=True
        )
        if (counts != PER_CLASS).any():
            odd, others = int(np.argmax(counts != PER_CLASS)), int((counts != PER_CLASS).sum())
            warnings.warn(
                f"Class {classes[odd]} has {counts[odd]} pictures in {place} and not {PER_CLASS}, as "
                f"{others} of {len(classes)} classes do: the test split, and so scores, are not the demo's.",
                stacklevel=2,
            )
        self.hierarchy = Hierarchy.from_wordnet([str(wnid) for wnid in classes])
        is_test = np.zeros(len(labels), dtype=bool)
        for label, count in enumerate(counts):
            is_test[np.flatnonzero(labels == label)[held_out_positions(int(count))]] = True
        keep = np.flatnonzero(is_test if split == "test" else ~is_test)
        self._hold(place, [rows[row][0] for row in keep], labels[keep], (val_fraction, seed))


def find_place(root: str | Path | None = None) -> Path | None:
    """The folder with mini-ImageNet in either layout, ``root/mini-imagenet`` or ``root``; else None."""
    base = root_folder(root)
    for place in (base / FOLDER, base):
        folders = (entry for part in ("", *SPLITS) for entry in (place / part).glob("n*") if entry.is_dir())
        if (place / "train.csv").is_file() or any(_WNID.fullmatch(folder.name) for folder in folders):
            return place
    return None


def _table_rows(place: Path) -> list[Row]:
    rows = [
        (f"images/{row['filename']}", row["label"])
        for part in SPLITS
        for _, row in read_rows(place / f"{part}.csv", ("filename", "label"))
    ]
    if missing := {name for name, _ in rows} - {
        f"images/{file.name}" for file in (place / "images").glob("*")
    }:
        raise CkfrError(
            f"{len(missing)} of {len(rows)} pictures, first {min(missing)}, are missing from {place}."
        )
    return rows


def _folder_rows(place: Path) -> list[Row]:
    rows: list[Row] = []
    for part in ("", *SPLITS):
        for wnid, names in class_folders(place / part).items():
            if _WNID.fullmatch(wnid):
                rows += [(f"{part}/{wnid}/{name}".removeprefix("/"), wnid) for name in names]
            elif part or wnid not in SPLITS:
                folder = place / part / wnid
                raise CkfrError(f"{folder} is no class folder; expected WordNet ids such as n01532829.")
    return rows


def fetch(root: str | Path | None = None, repo: str = REPO, revision: str = "main") -> Path:
    """Bring mini-ImageNet from the Hugging Face Hub; do nothing if it is here in either of its layouts.

    The copy's *train* has 500 and its *validation* 100 pictures of each class, and in this order they come
    into the class's folder; its *test* is not needed. It takes 15 GB for a while. Interrupted, a later call
    keeps the shards that have arrived.

    Args:
        repo: a data set repository built like ``timm/mini-imagenet``. ``$HF_ENDPOINT`` names another hub; the
            library's own login is used where there is one.
        revision: branch, tag or commit of it.

    Raises:
        CkfrError: if what is here is not whole, a library is missing, the repository or the disk cannot be
            used, a shard is damaged, or the pictures are not 600 of each of the classes.
    """
    place = find_place(root)
    if place is not None:
        MiniImageNet("test", root=place)  # complains of whatever is missing
        return place
    folder = root_folder(root) / FOLDER
    if folder.exists() and any(folder.iterdir()):
        raise CkfrError(f"{folder} is there already, in no layout of mini-ImageNet; move it away.")
    print(
        "mini-ImageNet is made of ImageNet's pictures: whoever downloads them accepts ImageNet's terms "
        "(research and teaching, not commerce; image-net.org/download).",
        file=sys.stderr,
    )
    shards = folder.with_name(f".{FOLDER}.shards")
    with working_folder(folder) as scratch:
        counts: Counter[str] = Counter()
        for number, shard in enumerate(_download(repo, revision, shards)):
            for position, (data, wnid) in enumerate(_read(shard)):
                counts[wnid] += 1
                (scratch / wnid).mkdir(exist_ok=True)
                (scratch / wnid / f"{wnid}{number:03}{position:05}.jpg").write_bytes(data)
        expected = dict.fromkeys(wordnet.class_list(FOLDER), PER_CLASS)
        for wnid in {**expected, **counts}:
            if counts[wnid] != (wanted := expected.get(wnid, 0)):
                raise CkfrError(f"{repo} has {counts[wnid]} pictures of class {wnid}; expected {wanted}.")
        scratch.rename(folder)
    shutil.rmtree(shards)
    return folder


def _download(repo: str, revision: str, folder: Path) -> Iterator[Path]:
    """The repository's shards of train, then of validation."""
    try:
        import huggingface_hub
        import pyarrow.parquet  # noqa: F401 -- asked for before anything is downloaded
    except ImportError as error:
        raise CkfrError(
            "Fetching mini-ImageNet needs huggingface_hub and pyarrow, and one of them is missing; "
            f"`pip install huggingface_hub pyarrow` brings both ({error})."
        ) from error
    parts = ("train*.parquet", "validation*.parquet")
    try:
        huggingface_hub.snapshot_download(
            repo, repo_type="dataset", revision=revision, local_dir=folder,
            allow_patterns=[f"*{part}" for part in parts], endpoint=os.environ.get("HF_ENDPOINT"),
        )  # fmt: skip
    except Exception as error:  # the errors are those of whichever HTTP client the library uses
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise CkfrError(f"The data set {repo} at {revision} cannot be had: {reason}.") from error
    found = [shard for part in parts for shard in sorted(folder.rglob(part))]
    return iter(tqdm(found, desc="shards", unit="shard"))


def _read(path: Path) -> Iterator[tuple[bytes, str]]:
    """Encoded picture and WordNet id of every row of a shard, a few hundred rows in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # as the ``datasets`` library writes it
            about = json.loads(file.schema_arrow.metadata[b"huggingface"])
            names = about["info"]["features"]["label"]["names"]
            for batch in file.iter_batches(batch_size=256, columns=["image", "label"]):
                for row in batch.to_pylist():
                    yield row["image"]["bytes"], names[row["label"]]
    except (pyarrow.ArrowException, KeyError, IndexError, TypeError) as error:
        path.unlink()  # for the next call to bring it anew
        raise CkfrError(f"{path.name} is no parquet file of pictures and labels ({error}).") from error
