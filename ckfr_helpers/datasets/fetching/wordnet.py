"""Bring WordNet 3.0's own files, laid out as NLTK wants them, to compare our distances with NLTK's.

Nothing in the series needs them: ``data/wordnet.tsv`` is enough. They are for the checks, and for rebuilding
that table.
"""

import contextlib
import io
import re
import shutil
from pathlib import Path

from ckfr_helpers.datasets.fetching.debian import fetch_deb
from ckfr_helpers.datasets.fetching.download import working_folder
from ckfr_helpers.datasets.files import root_folder
from ckfr_helpers.runtime import CkfrError

DEBIAN = Path("/usr/share/wordnet")
PARTS = ("adj", "adv", "noun", "verb")
FILES = (
    *(f"{kind}.{part}" for kind in ("data", "index") for part in PARTS),
    *(f"{part}.exc" for part in PARTS),
    "index.sense",
)

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

    Sources, in this order: the installed Debian package; the same package, downloaded and unpacked as the
    current user; NLTK's own download.

    Returns:
        ``root/wordnet``, a folder for ``nltk.data.path``.

    Raises:
        CkfrError: none of the three could bring it; the sentence says why.
    """
    target = root_folder(root) / "wordnet"
    final = target / "corpora" / "wordnet"
    if all((final / name).is_file() for name in (*FILES, "lexnames")):
        return target
    with working_folder(target) as scratch:
        ready = scratch / "ready"
        _arrange(_find(scratch), ready)
        if not re.search(rb"^02129165 .* lion ", (ready / "data.noun").read_bytes(), re.MULTILINE):
            raise CkfrError("The WordNet found is not version 3.0: its noun 02129165 should be the lion.")
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        ready.rename(final)
    # NLTK 3.10 refuses corpora that others could write to, whatever the umask here.
    for folder in (target, final.parent, final):
        folder.chmod(0o755)
    return target


def _find(scratch: Path) -> list[Path]:
    """Folders that together hold WordNet's files, downloaded below ``scratch`` unless they are installed."""
    try:
        # Debian keeps the sense index, which NLTK reads when it starts, in a package of its own.
        return [
            _debian(package, probe, scratch)
            for package, probe in (("wordnet-base", "data.noun"), ("wordnet-sense-index", "index.sense"))
        ]
    except CkfrError as error:
        no_debian = str(error)
    import nltk

    # NLTK reports a failed download by returning False, and prints why.
    with contextlib.redirect_stdout(io.StringIO()) as said:
        brought = nltk.download("wordnet", download_dir=str(scratch / "nltk"), quiet=False)
    place = scratch / "nltk" / "corpora" / "wordnet"
    archive = place.with_suffix(".zip")
    if brought and archive.is_file() and not place.is_dir():
        shutil.unpack_archive(archive, archive.parent)
    if not (place / "data.noun").is_file():
        reason = " ".join(said.getvalue().split()) or "no reason given"
        raise CkfrError(f"WordNet could not be had: {no_debian} NLTK's download failed too ({reason}).")
    return [place]


def _debian(package: str, probe: str, scratch: Path) -> Path:
    if (DEBIAN / probe).is_file():
        return DEBIAN
    return fetch_deb(package, scratch / package) / str(DEBIAN).lstrip("/")


def _arrange(sources: list[Path], ready: Path) -> None:
    """Copy the files NLTK reads; a fresh copy, as NLTK refuses hard links and files others may write to."""
    ready.mkdir()
    rows = [f"{number:02d}\t{name}\t{kind}\n" for number, (name, kind) in enumerate(LEXNAMES)]
    (ready / "lexnames").write_text("".join(rows))
    for name in FILES:
        place = next((folder / name for folder in sources if (folder / name).is_file()), None)
        if place is None:
            raise CkfrError(f"The WordNet in {sources[0]} is not whole: the file {name} is missing.")
        (ready / name).write_bytes(place.read_bytes())
    for file in ready.iterdir():
        file.chmod(0o644)
