"""The ranked sheet says of every picture what is known, in words as well as in colours."""

import numpy as np
from matplotlib.colors import same_color
from matplotlib.patches import Rectangle

from ckfr_helpers.teaching.plots.ranking import VERDICTS, Ranked, ranked_sheet


def test_each_picture_has_its_place_score_verdict_and_frame():
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (6, 3, 30, 40), dtype=np.uint8)
    words = ["right", "hard", "wrong", "junk", ""]
    names = ["a.png", "b.png", "c.png", "d.png", "a name much too long to stand under a picture.png"]
    boxes = [(1, 2, 10, 20), *[None] * 4]
    parts = zip(pictures[1:], (0.9, 0.8, 0.7, 0.6, 0.5), names, words, boxes, strict=True)
    figure = ranked_sheet(pictures[0], (3, 4, 12, 19), [Ranked(*one) for one in parts], columns=4)
    axes = figure.axes
    assert len(axes) == 8
    assert [axis.get_xlabel().split("\n")[0] for axis in axes[:6]] == [
        "query",
        "1   0.900   right",
        "2   0.800   hard",
        "3   0.700   wrong",
        "4   0.600   junk",
        "5   0.500",
    ]
    assert axes[5].get_xlabel().split("\n")[1] == "a name much… picture.png"
    assert not axes[6].axison
    for axis, picture, word in zip(axes, pictures, ["", *words], strict=False):
        assert np.array_equal(axis.images[0].get_array(), picture.transpose(1, 2, 0))
        framed = axis.spines["left"].get_visible()
        assert framed == bool(word)
        assert not framed or same_color(axis.spines["left"].get_edgecolor(), VERDICTS[word][0])
    framed = [[p for p in axis.patches if isinstance(p, Rectangle)] for axis in axes[:6]]
    assert [len(one) for one in framed] == [2, 2, 0, 0, 0, 0]
    assert framed[0][0].get_bbox().extents.tolist() == [2.5, 3.5, 12.5, 19.5]
    figure.draw_without_rendering()
    assert len({str(line) + str(colour) for colour, line in VERDICTS.values()}) == len(VERDICTS)
