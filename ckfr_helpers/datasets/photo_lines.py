"""What the makers of the embedded photographs say of each: one line, in up to 76 languages.

Beside every stamp lies a text file: line 1 in English, then ``de.utf8=Ein Schwein.`` and so on;
``ckfr fetch photo-lines`` brings them.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from ckfr_helpers.datasets.fetching.debian import fetch_deb
from ckfr_helpers.datasets.fetching.download import download, unpack, working_folder
from ckfr_helpers.datasets.files import root_folder
from ckfr_helpers.datasets.scenes import photos
from ckfr_helpers.runtime import CkfrError, atomic_path

MARK = ".utf8="


def read_lines(files: Sequence[str], language: str = "en", root: str | Path | None = None) -> tuple[str, ...]:
    """The line of each photograph, e.g. "Two wild boars."

    Args:
        files: names of photographs as `single.PhotoScenes.photos` has them.
        language: ``"en"``, or a code as the makers write it: ``"de"``, ``"pt_BR"``, ``"nb"``.
        root: folder that holds ``photos/``.

    Raises:
        CkfrError: a file is missing or damaged, or has no line in that language.
    """
    found = []
    for name in files:
        lines = _read(root_folder(root) / photos.FOLDER / name)
        if language not in lines:
            raise CkfrError(f"{name} has no line in {language!r}; it has {', '.join(sorted(lines))}.")
        found.append(lines[language])
    return tuple(found)


def languages(files: Sequence[str], root: str | Path | None = None) -> tuple[str, ...]:
    """Codes of the languages in which every one of these photographs has a line, sorted."""
    found = [set(_read(root_folder(root) / photos.FOLDER / name)) for name in files]
    return tuple(sorted(set.intersection(*found))) if found else ()


def _read(picture: Path) -> dict[str, str]:
    """Language code -> line."""
    path = picture.with_suffix(".txt")
    try:
        english, *others = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise CkfrError(f"{path} is missing or damaged; `ckfr fetch photo-lines` brings it.") from None
    pairs = [line.split(MARK, 1) for line in others if MARK in line]
    lines = {"en": english.strip(), **{code.strip(): text.strip() for code, text in pairs}}
    return {code: text for code, text in lines.items() if text}


def fetch(root: str | Path | None = None) -> Path:
    """Bring the text file of every photograph in the list from where `photos.fetch` has the pictures.

    What is here is left alone. The package is signed and the release has a checksum, so the texts have none
    of their own. If both ways fail, a `CkfrError` says why.
    """
    folder = root_folder(root) / photos.FOLDER
    names = [Path(photo["file"]).with_suffix(".txt") for photo in photos.read_list()]
    missing = [name for name in names if not (folder / name).is_file()]
    troubles: list[str] = []
    for bring in (_debian, _release) if missing else ():
        try:
            with working_folder(folder) as scratch:
                stamps = bring(scratch)
                for name in missing:
                    if not (stamps / name).is_file():
                        raise CkfrError(f"{stamps} has no {name}.")
                    with atomic_path(folder / name) as temporary:
                        shutil.copyfile(stamps / name, temporary)
            return folder
        except CkfrError as error:
            troubles.append(str(error))
    if troubles:
        raise CkfrError(f"{len(missing)} lines of photographs could not be fetched: {' '.join(troubles)}")
    return folder


def _debian(scratch: Path) -> Path:
    return fetch_deb(photos.PACKAGE, scratch / "package") / photos.STAMPS


def _release(scratch: Path) -> Path:
    archive = download(photos.RELEASE, scratch / "release.tar.gz", f"sha256:{photos.RELEASE_SHA256}")
    return next(unpack(archive, scratch / "release").glob("*/stamps"))
