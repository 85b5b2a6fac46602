"""Pictures with labels, hierarchy, and boxes or masks where there are any: one file a source, opened by name.

    train = open_source("photos", "train", background_bias=0.9)
    fetch("cifar10")

A source's module is imported only when it is asked for.
"""

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ckfr_helpers.runtime import CkfrError

if TYPE_CHECKING:
    from ckfr_helpers.datasets.base import ImageSource


class _Entry(NamedTuple):
    """A source's class and its fetching function, as ``module:attribute`` below this package."""

    source: "str | type[ImageSource] | None"
    fetch: str | None
    options: dict[str, Any] = {}  # noqa: RUF012 -- never written to; handed to both


_REGISTRY: dict[str, _Entry] = {
    "photos": _Entry("scenes.single:PhotoScenes", "scenes.photos:fetch"),
    "photo-lines": _Entry(None, "photo_lines:fetch"),
    "mini-imagenet": _Entry("sources.mini_imagenet:MiniImageNet", "sources.mini_imagenet:fetch"),
    "tiny-imagenet": _Entry("sources.tiny_imagenet:TinyImageNet", "sources.tiny_imagenet:fetch"),
    "cifar10": _Entry("sources.cifar:Cifar", "sources.cifar:fetch", {"name": "cifar10"}),
    "cifar100": _Entry("sources.cifar:Cifar", "sources.cifar:fetch", {"name": "cifar100"}),
    "folder": _Entry("sources.folder:PictureFolder", None),
    "voc2007": _Entry("sources.voc:Voc2007", "sources.voc:fetch"),
    "coco": _Entry("sources.coco:Coco", "sources.coco:fetch"),
    "imagenet": _Entry("sources.imagenet:ImageNet", "sources.imagenet:fetch"),
    "nabirds": _Entry("sources.nabirds:NABirds", None),
    "several-photos": _Entry("scenes.several:SeveralScenes", None),
    "wordnet": _Entry(None, "fetching.wordnet:fetch"),
}


def names() -> tuple[str, ...]:
    """Every source of the package that `open_source` opens."""
    return tuple(name for name, entry in _REGISTRY.items() if isinstance(entry.source, str))


def is_source(name: str) -> bool:
    """Whether `open_source` knows the name; registered ones count."""
    return name in _REGISTRY and _REGISTRY[name].source is not None


def fetchable() -> tuple[str, ...]:
    """Everything that `fetch` knows: the sources, and data that is not pictures."""
    return tuple(name for name, entry in _REGISTRY.items() if entry.fetch)


def register(name: str, source: "type[ImageSource]") -> None:
    """Have every command know a source of one's own, called as ``source(split=…, root=…, **options)``."""
    _REGISTRY[name] = _Entry(source, None)


def open_source(name: str, split: str, root: str | Path | None = None, **options: Any) -> "ImageSource":
    """Open one split, ``"train"``, ``"val"`` or ``"test"``, of a source.

    Args:
        root: folder that holds the source's folder (or that folder itself); None for ``data_root()``.
        options: passed to the source's class, e.g. ``val_fraction=0.1`` or ``background_bias=0.9``.

    Raises:
        CkfrError: if the name, split or an option is unknown, or the data is not as expected.
    """
    entry = _REGISTRY.get(name)
    if entry is None or entry.source is None:
        raise CkfrError(f"There is no image source {name!r}; expected one of {', '.join(names())}.")
    source = _resolve(entry.source)
    known = set(inspect.signature(source).parameters) - {"split", "root", *entry.options}
    for option in options:
        if option not in known:
            raise CkfrError(f"{name} has no option {option!r}; expected one of {', '.join(sorted(known))}.")
    return source(split=split, **_arguments(entry, root, options))


def fetch(name: str, root: str | Path | None = None, **options: Any) -> Path:
    """Bring one of `fetchable` here, if its terms and the network allow; do nothing if it is here already.

    It goes below ``root``, or ``data_root()``; ``options`` are passed to the source's own function. Returns
    the folder (or file) that now holds it. A `CkfrError` says why it could not be had from any of its places.
    """
    entry = _REGISTRY.get(name)
    if entry is None or entry.fetch is None:
        raise CkfrError(f"There is no data set {name!r} to fetch; expected one of {', '.join(fetchable())}.")
    return _resolve(entry.fetch)(**_arguments(entry, root, options))


def _arguments(entry: _Entry, root: str | Path | None, options: dict[str, Any]) -> dict[str, Any]:
    return {**entry.options, **options, **({} if root is None else {"root": root})}


def _resolve(place: Any) -> Any:
    if not isinstance(place, str):
        return place
    module, attribute = place.split(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
