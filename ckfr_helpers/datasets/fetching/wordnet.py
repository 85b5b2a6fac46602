"""Bring WordNet 3.0's own files, laid out as NLTK wants them, to check and rebuild ``data/wordnet.tsv``."""

import re
import shutil
from pathlib import Path

from ckfr_helpers.datasets.fetching.debian import fetch_deb
from ckfr_helpers.datasets.fetching.download import working_folder
from ckfr_helpers.datasets.files import root_folder
from ckfr_helpers.runtime import CkfrError

DEBIAN = Path("/usr/share/wordnet")
# Debian keeps the sense index, which NLTK reads when it starts, in a package of its own.
PACKAGES = {"wordnet-base": "data.noun", "wordnet-sense-index": "index.sense"}

# Debian leaves out the file `lexnames`, which NLTK opens first. Number, name and word class of WordNet's 45
# lexicographer files, as the manual page lexnames(5WN) lists them.
_NOUNS = """Tops act animal artifact attribute body cognition communication event feeling food group location
motive object person phenomenon plant possession process quantity relation shape state substance time"""
_VERBS = """body change cognition communication competition consumption contact creation emotion motion
perception possession social stative weather"""
LEXNAMES = [
    *[("adj.all", 3), ("adj.pert", 3), ("adv.all", 4)],
    *[(f"noun.{name}", 1) for name in _NOUNS.split()],
    *[(f"verb.{name}", 2) for name in _VERBS.split()],
    ("adj.ppl", 3),
]


def fetch(root: str | Path | None = None) -> Path:
    """Put WordNet 3.0 where `hierarchy.wordnet.nltk_wordnet` and ``tools/build_wordnet.py`` find it.

    It comes from the Debian packages, installed, or downloaded and unpacked as the current user. Returns
    ``root/wordnet``, a folder for ``nltk.data.path``.
    """
    target = root_folder(root) / "wordnet"
    final = target / "corpora" / "wordnet"
    if (final / "lexnames").is_file():
        return target
    with working_folder(target) as scratch:
        ready = scratch / "ready"
        ready.mkdir()
        for place in _places(scratch):
            for file in place.iterdir():
                shutil.copyfile(file, ready / file.name)
        rows = [f"{number:02d}\t{name}\t{kind}\n" for number, (name, kind) in enumerate(LEXNAMES)]
        (ready / "lexnames").write_text("".join(rows))
        if not re.search(rb"^02129165 .* lion ", (ready / "data.noun").read_bytes(), re.MULTILINE):
            raise CkfrError("The WordNet found is not version 3.0: its noun 02129165 should be the lion.")
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        ready.rename(final)
    # NLTK 3.10 refuses corpora that others could write to, whatever the umask here.
    for place in (target, final.parent, final, *final.iterdir()):
        place.chmod(0o755 if place.is_dir() else 0o644)
    return target


def _places(scratch: Path) -> list[Path]:
    """Folders that together hold WordNet's files, downloaded below ``scratch`` unless they are installed."""
    if all((DEBIAN / name).is_file() for name in PACKAGES.values()):
        return [DEBIAN]
    try:
        return [fetch_deb(package, scratch / package) / str(DEBIAN).lstrip("/") for package in PACKAGES]
    except CkfrError as error:
        raise CkfrError(
            f"WordNet could not be had: {error} `python -m nltk.downloader wordnet` brings it "
            "from elsewhere, to a place that serves as well."
        ) from error
