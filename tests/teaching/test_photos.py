"""Photographs in rows: maps laid over them, and the boxes and IoUs that are drawn."""

import io

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from ckfr_helpers import localization
from ckfr_helpers.teaching.plots import photos
from ckfr_helpers.teaching.plots.style import jpeg

BOX = np.array([[3, 4, 20, 18]])


def test_overlay_blends_grey_and_colour():
    picture = np.zeros((3, 4, 5), np.uint8)
    picture[1] = 200  # pure green: 0.587 of it is grey
    scores = np.linspace(0, 1, 20).reshape(4, 5)
    grey, colour = (photos.overlay(picture, scores, blend) for blend in (0, 1))
    np.testing.assert_allclose(grey, 0.587 * 200 / 255, rtol=1e-6)
    np.testing.assert_allclose(colour, colormaps["cividis"](scores)[..., :3])
    np.testing.assert_allclose(photos.overlay(picture, scores, 0.5), (grey + colour) / 2)


@pytest.fixture
def pictures():
    return np.random.default_rng(1).integers(0, 255, (5, 3, 24, 24), dtype=np.uint8)


def test_the_three_rows_show_the_boxes_they_score(pictures):
    maps = np.random.default_rng(2).random((2, 5, 24, 24))
    rows, cuts = dict(zip(("baseline", "CKFR"), maps, strict=True)), {"baseline": 0.5, "CKFR": 0.7}
    figure = photos.maps_on_pictures(pictures, list("abcde"), rows, [BOX] * 5, cuts)
    assert [axis.get_title() for axis in figure.axes[:5]] == list("abcde")
    assert [axis.get_ylabel() for axis in figure.axes[::5]] == ["picture", "baseline", "CKFR"]
    for (name, own), line in zip(rows.items(), (figure.axes[5:10], figure.axes[10:]), strict=True):
        for scores, axis in zip(own, line, strict=True):
            found = localization.boxes_from_map(scores, cuts[name])
            assert axis.get_xlabel() == f"IoU {localization.iou_matrix(found, BOX).max():.2f}"
            drawn = {tuple(patch.get_bbox().extents) for patch in axis.patches}  # to the pixels' outer edges
            assert drawn == {(b[0] - 0.5, b[1] - 0.5, b[2] + 0.5, b[3] + 0.5) for b in (BOX[0], found[0])}


def test_pictures_are_large_in_the_notebook(pictures):
    """Five columns, three rows: about 850 pixels, each picture at least 150."""
    figure = photos.maps_on_pictures(pictures, list("abcde"), {"one": np.zeros((5, 24, 24))})
    width, _ = Image.open(io.BytesIO(jpeg(figure))).size
    assert width > 800
    figure.canvas.draw()
    assert min(axis.get_window_extent().width for axis in figure.axes) >= 150
