"""Scenes made of cut-outs drawn here, so that tests need no photographs."""

from collections.abc import Iterator

import numpy as np
import pytest

from ckfr_helpers.datasets.scenes import backgrounds, photos
from ckfr_helpers.datasets.scenes.photos import Cutout
from ckfr_helpers.datasets.scenes.single import PhotoScenes
from ckfr_helpers.hierarchy import Hierarchy

SIZE = 64
TREE = Hierarchy.from_nested({"thing": {"round": ["ball", "ring"], "angular": ["box"]}})


def drawn(kind: str, colour: tuple[int, int, int], size: int = 90) -> np.ndarray:
    """A cut-out: a disc, a ring or a box, with an anti-aliased rim of alpha."""
    y, x = (np.indices((size, size)) - (size - 1) / 2) / (size / 2)
    radius = np.hypot(x, y)
    inside = {
        "ball": 0.95 - radius,
        "ring": np.minimum(0.95 - radius, radius - 0.45),
        "box": np.minimum(0.9 - np.abs(x), 0.6 - np.abs(y)),
    }[kind]
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = np.clip(inside * size / 2 + 0.5, 0, 1) * 255
    return photos.clean(pixels)


def cutouts(colour: tuple[int, int, int] = (180, 60, 40)) -> list[Cutout]:
    """Three classes with two, two and one cut-out."""
    kinds = ["ball", "ball", "ring", "ring", "box"]
    return [
        Cutout(drawn(kind, colour, 70 + 10 * number), TREE.label(kind), f"{kind}{number}")
        for number, kind in enumerate(kinds)
    ]


def scenes(split: str = "train", **options) -> PhotoScenes:
    options = {"cutouts": cutouts(), "hierarchy": TREE, "size": SIZE, "instances": 2, "scenes": 60} | options
    return PhotoScenes(split, **options)


@pytest.fixture(scope="module")
def kept_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Places are painted once for a file of tests, away from the user's data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKFR_DATA", str(tmp_path_factory.mktemp("data")))
        backgrounds.places.cache_clear()
        yield
        backgrounds.places.cache_clear()


def coloured_cutouts() -> list[Cutout]:
    """As `cutouts`, with balls red, rings green and boxes blue."""
    colours = {"ball": (230, 20, 20), "ring": (20, 200, 20), "box": (20, 20, 230)}
    return [
        Cutout(drawn(TREE.names[one.label], colours[TREE.names[one.label]], 80), one.label, one.name)
        for one in cutouts()
    ]
