"""What makes a ``{child: parent}`` mapping a tree with given leaves, and a matrix one of distances."""

import graphlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ckfr_helpers.runtime import CkfrError

GROUP = "+"  # an inner node that is a class too becomes "ID+", and the class "ID" a leaf below it


class TreeError(CkfrError):
    """These edges are no tree; ``nodes`` are those at fault, so that a reader of files can name lines."""

    def __init__(self, message: str, *nodes: str) -> None:
        super().__init__(message)
        self.nodes = nodes


def check_classes(classes: Sequence[str]) -> None:
    """Refuse what is no list of distinct names."""
    if isinstance(classes, str) or len(classes) == 0:
        raise CkfrError(f"The classes are {classes!r}; expected a list of names, at least one.")
    for name, count in Counter(classes).items():
        if not isinstance(name, str) or not name:
            raise CkfrError(f"The class {name!r} is no name; expected a non-empty string.")
        if count > 1:
            raise CkfrError(f"Class {name!r} is listed {count} times; expected each class once.")


def check_distances(distances: Any, classes: Sequence[str] | None = None, where: str = "") -> np.ndarray:
    """(C, C) ``distances`` as an array: finite, at least 0, symmetric, with a zero diagonal.

    ``classes`` (labels if None) and the file ``where`` are for the error, which names the pair at fault.
    """
    matrix = np.asarray(distances)
    count = len(classes) if classes is not None else len(matrix) if matrix.ndim else 0
    source = f" in {where}" if where else ""
    if matrix.shape != (count, count) or count == 0 or matrix.dtype.kind not in "iuf":
        shown = f"The distances{source} are {matrix.dtype} of shape {matrix.shape}"
        raise CkfrError(f"{shown}; expected numbers, a row and a column for each class.")
    for fault, expected in (
        (~np.isfinite(matrix) | (matrix < 0), "a finite distance of at least 0"),
        (np.eye(count, dtype=bool) & (matrix != 0), "0 from a class to itself"),
        (~np.isclose(matrix, matrix.T), "the same in both directions"),
    ):
        if fault.any():
            a, b = np.argwhere(fault)[0]
            names = [repr(classes[i]) if classes is not None else f"class {i}" for i in (a, b)]
            shown = f"{matrix[a, b]} and {matrix[b, a]} back" if "both" in expected else matrix[a, b]
            way = f"The distance{source} from {names[0]} to {names[1]}"
            raise CkfrError(f"{way} is {shown}; expected {expected}.")
    return matrix


def check_tree(parent: Mapping[str, str]) -> None:
    """One root and no cycle. Every node has at most one parent because ``parent`` is a mapping."""
    try:
        graphlib.TopologicalSorter({below: (above,) for below, above in parent.items()}).prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1]
        shown = " → ".join(map(repr, cycle))
        raise TreeError(f"The pairs run in a cycle, {shown}; a tree has none.", *cycle) from None
    roots = list(dict.fromkeys(above for above in parent.values() if above not in parent))
    if len(roots) > 1:
        raise TreeError(f"The tree has several roots, {', '.join(map(repr, roots))}; expected one.", *roots)


def prune(parent: Mapping[str, str], classes: Sequence[str]) -> dict[str, str]:
    """The edges on the way from a class to the root, in the old order."""
    kept: set[str] = set()
    for name in classes:
        node = name
        while node in parent and node not in kept:
            kept.add(node)
            node = parent[node]
    return {node: above for node, above in parent.items() if node in kept}


def refuse_inner(parent: Mapping[str, str], classes: Sequence[str], names: Mapping[str, str]) -> None:
    """Every class must be a leaf."""
    below = {above: node for node, above in reversed(list(parent.items()))}
    for name in classes:
        if name in below:
            class_, child = (f"{n!r} ({names[n]})" if n in names else repr(n) for n in (name, below[name]))
            raise TreeError(f"Class {class_} is no leaf: {child} lies below it.", below[name])


def give_leaves(parent: dict[str, str], classes: Sequence[str], names: dict[str, str]) -> dict[str, str]:
    """A leaf of its own for every class that is an inner node; ``names`` gains the groups' names."""
    inner_nodes = set(parent.values())
    groups = {name: f"{name}{GROUP}" for name in classes if name in inner_nodes}
    settled: dict[str, str] = {}
    for below, above in parent.items():
        settled[groups.get(below, below)] = groups.get(above, above)
        if below in groups:
            settled[below] = groups[below]
    for name, group in groups.items():
        if group in parent or group in inner_nodes:
            raise TreeError(f"The tree has a node {group!r}, the name for the group above {name!r}.", group)
        settled.setdefault(name, group)  # the root as a class
        names[group] = f"{names.get(name, name)} (all)"
    return settled
