"""The branches of a tree, their colours, and the small multiples that use them."""

import colorsys
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

from ckfr_helpers.datasets.scenes.photos import class_ids
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.losses.arrangement import small_trees
from ckfr_helpers.teaching.plots.classes import (
    HUES,
    alpha_ell_grid,
    class_colours,
    main_branches,
    node_colours,
    sisters,
)
from ckfr_helpers.teaching.plots.refit import MOST_BRANCHES
from ckfr_helpers.teaching.plots.style import COLOURS

TREES = small_trees()
TREE = TREES["balanced"]


@pytest.fixture(scope="module")
def photo_tree() -> Hierarchy:
    return Hierarchy.from_wordnet(class_ids())


def names(tree: Hierarchy, labels) -> list[str]:
    return [tree.names[label] for label in labels]


def test_branches_hold_every_class_once_and_never_too_many(photo_tree):
    for tree in (*TREES.values(), photo_tree):
        for most in (1, 2, 4, 8):
            branches = main_branches(tree, most)
            assert len(branches) <= most
            assert [label for branch in branches for label in branch.labels] == tree.order().tolist()
            assert [branch.start for branch in branches] == [
                0, *itertools.accumulate(len(branch.labels) for branch in branches[:-1])
            ]  # fmt: skip
            for branch in branches:
                for label in branch.labels:
                    assert branch.node in tree.path_to_root(tree.classes[label])
    assert [names(TREE, branch.labels) for branch in main_branches(TREE, 4)] == [
        ["lion", "tiger"], ["robin", "owl"], ["frying pan", "wok"], ["bus", "tractor"],
    ]  # fmt: skip


def test_sisters_share_a_parent():
    assert [names(TREE, labels) for labels in sisters(TREE)] == [
        ["lion", "tiger"], ["robin", "owl"], ["frying pan", "wok"], ["bus", "tractor"],
    ]  # fmt: skip
    assert [names(TREES["lopsided"], labels) for labels in sisters(TREES["lopsided"])] == [
        ["frying pan"], ["bee"], ["robin"], ["wolf"], ["lion", "tiger"],
    ]  # fmt: skip
    assert len(sisters(TREES["flat"])) == 1


def test_every_class_has_a_colour_of_its_own_and_a_branch_one_hue(photo_tree):
    for tree in (*TREES.values(), photo_tree):
        branches = [branch.labels for branch in main_branches(tree, MOST_BRANCHES)]
        for cut in (branches, sisters(tree)):
            if len(cut) > len(HUES):
                continue
            colours = class_colours(cut)
            assert colours.shape == (len(tree), 3)
            assert len(np.unique(colours.round(4), axis=0)) == len(tree)
            for labels, hue in zip(cut, HUES, strict=False):
                np.testing.assert_allclose(colours[labels[0]], COLOURS[hue])
                hues, _, values = zip(
                    *(colorsys.rgb_to_hsv(*colours[label]) for label in labels), strict=True
                )
                assert np.ptp(hues) < 1e-9
                assert sorted(values, reverse=True) == list(values)


def test_notebook_03_names_the_hues_rightly(photo_tree):
    """Mammals orange, birds light blue, artefacts brown, fruit and vegetables pink."""
    nodes = node_colours(photo_tree, MOST_BRANCHES)
    hues = {photo_tree.name(node): colour for node, colour in nodes.items()}
    for name, hue in (("big cat", "orange"), ("seabird", "sky"), ("truck", "brown"), ("apple", "pink")):
        assert hues[name] == COLOURS[hue]


def test_the_grid_puts_every_setting_in_its_place():
    grid = {(alpha, ell): f"{alpha} and {ell}" for ell in (2.0, 0.8) for alpha in (20, 0, 2)}
    colours = class_colours(sisters(TREE))
    figure = alpha_ell_grid(grid, lambda axis, text: axis.set_title(text), TREE, colours)
    assert [axis.get_title() for axis in figure.axes] == [
        "0 and 0.8", "2 and 0.8", "20 and 0.8", "0 and 2.0", "2 and 2.0", "20 and 2.0",
    ]  # fmt: skip
    assert [axis.get_xlabel() for axis in figure.axes] == [""] * 3 + ["alpha = 0", "alpha = 2", "alpha = 20"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["ell = 0.8", "", "", "ell = 2", "", ""]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names(TREE, TREE.order())
    shown = [to_hex(handle.get_color()) for handle in legend.legend_handles]
    assert shown == [to_hex(colours[label]) for label in TREE.order()]
