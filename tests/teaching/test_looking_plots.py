"""Figures about looking: what is computed for them, and that they draw what they are given."""

import numpy as np
import pytest
from matplotlib import colormaps

from ckfr_helpers import localization
from ckfr_helpers.attribution.look import Look
from ckfr_helpers.teaching.plots import looking as plots


def a_look(maps, boxes):
    count = len(maps)
    zeros = np.zeros(count, int)
    return Look(
        np.arange(count), zeros, zeros, np.zeros(count), zeros.astype(bool), np.zeros(count),
        localization.box_ious(maps, boxes), localization.box_ious(maps, boxes, "largest"), float("nan"),
    )  # fmt: skip


def test_overlay_blends_grey_and_colour():
    picture = np.zeros((3, 4, 5), np.uint8)
    picture[1] = 200  # pure green: 0.587 of it is grey
    scores = np.linspace(0, 1, 20).reshape(4, 5)
    np.testing.assert_allclose(plots.overlay(picture, scores, 0), 0.587 * 200 / 255, rtol=1e-6)
    np.testing.assert_allclose(plots.overlay(picture, scores, 1), colormaps["cividis"](scores)[..., :3])
    half = plots.overlay(picture, scores, 0.5)
    np.testing.assert_allclose(
        half, (plots.overlay(picture, scores, 0) + plots.overlay(picture, scores, 1)) / 2
    )


def test_best_iou_is_the_largest_of_all_pairs():
    found, true = np.array([[0, 0, 9, 9], [20, 20, 29, 29]]), np.array([[0, 0, 9, 4], [20, 20, 29, 29]])
    assert plots.best_iou(found, true) == 1
    assert plots.best_iou(found[:1], true) == pytest.approx(0.5)


def test_gains_compare_each_network_at_its_own_threshold():
    generator = np.random.default_rng(0)
    boxes = [np.array([[3, 4, 20, 18]])] * 6
    first, second = generator.random((2, 6, 24, 24))
    gain = plots.gains(a_look(first, boxes), a_look(second, boxes), 0.4, 0.713)
    for i in range(6):
        ious = [
            plots.best_iou(localization.boxes_from_map(m, t), boxes[i])
            for m, t in ((second[i], 0.713), (first[i], 0.4))
        ]
        assert gain[i] == pytest.approx(ious[0] - ious[1])


def test_maps_on_pictures_shows_the_ious_of_the_boxes_it_draws():
    generator = np.random.default_rng(1)
    pictures = generator.integers(0, 255, (3, 3, 24, 24), dtype=np.uint8)
    boxes = [np.array([[3, 4, 20, 18]])] * 3
    maps = generator.random((3, 24, 24))
    figure = plots.maps_on_pictures(pictures, boxes, ["a", "b", "c"], {"net": maps}, {"net": 0.5})
    said = [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel()]
    ious = [plots.best_iou(localization.boxes_from_map(m, 0.5), b) for m, b in zip(maps, boxes, strict=True)]
    assert said == [f"IoU {iou:.2f}" for iou in ious]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]


def a_result():
    def pair(a, b):
        return {
            "baseline": {"mean": a, "low": a - 0.1, "high": a + 0.1, "n": 5},
            "ckfr": {"mean": b, "low": b - 0.1, "high": b + 0.1, "n": 5},
            "difference": {"mean": b - a, "low": b - a - 0.05, "high": b - a + 0.05, "n": 5},
        }

    rows = []
    for bias, a, b in (("0", 0.3, 0.4), ("0.9", 0.2, 0.5)):
        scores = {"energy": pair(a, b), "drop": pair(b, a)}
        every = {"5": {"energy": pair(a, b)["difference"]}, "20": {"energy": pair(b, a)["difference"]}}
        rows.append(
            {"condition": f"bias {bias}", "scores": scores, "every_alpha": every,
             "over_photographs": {"energy": pair(a, b)}}
        )  # fmt: skip
    return {"results": rows, "blind": {"uniform_energy": 0.13}}


def test_the_table_tells_both_intervals():
    table = plots.look_table(a_result(), ("energy", "drop"))
    row = table.loc[("bias 0.9", "energy on the object")]
    assert row["baseline"] == "0.200 [0.100, 0.300]"
    assert row["difference over seeds"] == "+0.300 [+0.250, +0.350]"
    assert row["difference over photographs"] == row["difference over seeds"]
    assert table.loc[("bias 0", "usual − foreign")]["difference over photographs"] == ""


def test_by_bias_draws_means_and_the_blind_level():
    figure = plots.by_bias(a_result(), ("energy", "drop"))
    axis = figure.axes[0]
    drawn = [line.get_ydata() for container in axis.containers for line in container.lines[:1]]
    np.testing.assert_allclose(np.array(drawn, float), [[0.3, 0.2], [0.4, 0.5]])
    assert any(list(line.get_ydata()) == [0.13, 0.13] for line in axis.lines)


def test_by_alpha_leaves_out_what_was_not_measured():
    figure = plots.by_alpha({"scenes": a_result()}, ("energy", "drop"))
    assert len(figure.axes[0].containers) == 2
    assert len(figure.axes[1].containers) == 0


def test_differences_draws_seeds_and_photographs():
    figure = plots.differences({"scenes": a_result()}, ("energy",))
    ends = [
        tuple(np.round(line.get_xdata(), 3)) for line in figure.axes[0].lines if len(line.get_xdata()) == 2
    ]
    assert (0.25, 0.35) in ends
