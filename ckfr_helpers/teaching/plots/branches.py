"""The branches of a tree and their colours: one hue a branch, from light to dark within it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb

from ckfr_helpers.hierarchy.tree import Hierarchy
from ckfr_helpers.teaching.plots.style import COLOURS

#: Of branches in tree order, unless a figure says otherwise; notebook 03's text names some.
HUES = ("orange", "sky", "blue", "green", "red", "purple", "brown", "pink", "yellow", "grey")
#: Brightness of a branch's last class; its first has 1.
DARKEST = 0.55


class Branch(NamedTuple):
    """One branch: its top node, place of its first class in tree order, its classes from there on."""

    node: str
    start: int
    labels: tuple[int, ...]


def main_branches(hierarchy: Hierarchy, most: int, smallest: int = 1) -> list[Branch]:
    """Cut the tree into branches: the largest is opened again and again, as long as that leaves few enough.

    Args:
        hierarchy: the tree.
        most: at most so many branches ...
        smallest: ... with at least so many classes each. Smaller ones are not counted, and a branch that
            would lose more than a fifth of its classes to them stays whole.

    Returns:
        All branches in tree order; together they hold every class once.
    """
    ranges = _ranges(hierarchy)
    found, closed = [hierarchy.root], set[str]()
    while candidates := [node for node in found if node not in closed]:
        widest = max(candidates, key=lambda node: ranges[node][1])
        children = hierarchy.children.get(widest, ())
        place = found.index(widest)
        opened = [*found[:place], *children, *found[place + 1 :]]
        counted = [node for node in opened if ranges[node][1] >= smallest]
        kept = sum(ranges[child][1] for child in children if ranges[child][1] >= smallest)
        if len(counted) <= most and 5 * kept >= 4 * ranges[widest][1]:
            found = opened
        else:
            closed.add(widest)
    order = hierarchy.order().tolist()
    spans = [(node, *ranges[node]) for node in found]
    return [Branch(node, start, tuple(order[start : start + size])) for node, start, size in spans]


def _ranges(hierarchy: Hierarchy) -> dict[str, tuple[int, int]]:
    """(first place in tree order, number of classes) of every node."""
    ranges: dict[str, tuple[int, int]] = {}
    for place, label in enumerate(hierarchy.order()):
        for node in hierarchy.path_to_root(hierarchy.classes[label]):
            start, size = ranges.get(node, (place, 0))
            ranges[node] = (start, size + 1)
    return ranges


def sisters(hierarchy: Hierarchy) -> list[tuple[int, ...]]:
    """Labels of the classes that share a parent, one tuple a parent: the finest cut of a small tree."""
    under: dict[str, list[int]] = {}
    for label in hierarchy.order().tolist():
        under.setdefault(hierarchy.parent[hierarchy.classes[label]], []).append(label)
    return [tuple(labels) for labels in under.values()]


def class_colours(branches: Sequence[Sequence[int]], hues: Sequence[str] = HUES) -> np.ndarray:
    """A colour for each class: one hue a branch, from light to dark within it, so that relatives look alike.

    Args:
        branches: labels of each branch; together 0 to C − 1, each once.
        hues: names in `style.COLOURS`; with more branches than hues they come round again.

    Returns:
        (C, 3) RGB in label order.
    """
    colours = np.zeros((sum(map(len, branches)), 3))
    for number, labels in enumerate(branches):
        hue = np.array(to_rgb(COLOURS[hues[number % len(hues)]]))
        for label, light in zip(labels, np.linspace(1, DARKEST, len(labels)), strict=True):
            colours[label] = hue * light
    return colours


def node_colours(hierarchy: Hierarchy, most: int) -> dict[str, Any]:
    """Node id -> colour for the nodes of at most so many main branches, the way down to each included."""
    found = {}
    for branch, hue in zip(main_branches(hierarchy, most), HUES, strict=False):
        end = branch.start + len(branch.labels)
        for node, (start, size) in _ranges(hierarchy).items():
            if branch.start <= start and start + size <= end:
                found[node] = COLOURS[hue]
    return found
