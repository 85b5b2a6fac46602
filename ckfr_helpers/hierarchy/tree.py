"""Classes as the leaves of a tree, and how far apart they are in it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ckfr_helpers.hierarchy import checks, files
from ckfr_helpers.runtime import CkfrError

Measure = Literal["path", "lca_height", "wu_palmer"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclass(frozen=True)
class Hierarchy:
    """A rooted tree whose leaves are the classes; the ``from_…`` constructors check that it is one.

    Example:
        >>> pairs = [("thing", "cat"), ("cat", "lion"), ("cat", "tiger"), ("thing", "pan")]
        >>> Hierarchy.from_pairs(pairs, classes=["lion", "tiger", "pan"]).distances("path").tolist()
        [[0.0, 2.0, 3.0], [2.0, 0.0, 3.0], [3.0, 3.0, 0.0]]
    """

    classes: tuple[str, ...]  # the C leaf ids in label order
    parent: dict[str, str]  # of every node but the root
    node_names: dict[str, str]  # readable name of a node, where it differs from its id

    def __post_init__(self) -> None:
        kept = {n: t for n, t in self.node_names.items() if n in self.parent or n == self.root}
        object.__setattr__(self, "node_names", kept)

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[tuple[str, str]],
        classes: Sequence[str] | None = None,
        *,
        names: Mapping[str, str] | None = None,
        inner: Literal["error", "leaf"] = "error",
    ) -> "Hierarchy":
        """From (parent, child) ids.

        Args:
            pairs: the edges, each once.
            classes: the leaf ids in label order; every leaf in order of appearance if None. What leads to
                no class is left out, as :meth:`subset` would.
            names: readable names of nodes; an id without one is its own name.
            inner: for a class that has another class below it (CIFAR-100's whale and dolphin), ``"error"``
                refuses; ``"leaf"`` takes it as "any other whale": the inner node becomes ``"whale+"`` and the
                class ``"whale"`` a leaf directly below it.

        Raises:
            CkfrError: a cycle, a second root or parent, a pair or class given twice, an unknown class, or an
                inner node as a class. The message names the offender.
        """
        parent: dict[str, str] = {}
        for pair in pairs:
            nodes = tuple(pair) if isinstance(pair, Sequence) and not isinstance(pair, str) else ()
            if len(nodes) != 2 or not all(isinstance(node, str) and node for node in nodes):
                raise checks.TreeError(f"{pair!r} is no pair; expected (parent, child).", *nodes[1:])
            above, below = pair
            if below in parent:
                both = f"{parent[below]!r} and {above!r}"
                raise checks.TreeError(f"Node {below!r} is a child twice, of {both}.", below)
            parent[below] = above
        if not parent:
            raise CkfrError("There are no pairs; expected at least one (parent, child).")
        checks.check_tree(parent)
        inner_nodes = set(parent.values())
        classes = [node for node in parent if node not in inner_nodes] if classes is None else classes
        checks.check_classes(classes)
        for name in classes:
            if name not in parent and name not in inner_nodes:
                raise checks.TreeError(f"Class {name!r} is in no pair; expected a leaf of the tree.")
        node_names = {n: t for n, t in (names or {}).items() if t != n}
        if inner == "error":
            checks.refuse_inner(parent, classes, node_names)
        return cls(
            tuple(classes), checks.give_leaves(checks.prune(parent, classes), classes, node_names), node_names
        )

    @classmethod
    def from_csv(cls, path: str | Path, classes: Sequence[str] | None = None) -> "Hierarchy":
        """From a CSV file with the columns ``parent`` and ``child``; errors name the file and the lines."""
        pairs, lines = files.read_csv(path)
        try:
            return cls.from_pairs(pairs, classes)
        except CkfrError as error:
            found = sorted({line for node in getattr(error, "nodes", ()) for line in lines.get(node, ())})
            where = f", line{'s' * (len(found) > 1)} {' and '.join(map(str, found))}" if found else ""
            raise CkfrError(f"{path}{where}: {error}") from None

    @classmethod
    def from_nested(cls, nested: Mapping[str, Any], classes: Sequence[str] | None = None) -> "Hierarchy":
        """From a nested mapping with one key, the root.

        A node's value is a mapping of its children, a list of leaf ids, or ``None`` / ``{}`` for a leaf:
        ``{"thing": {"animal": ["lion", "tiger"], "pan": None}}``. Errors as :meth:`from_pairs`.
        """
        if not isinstance(nested, Mapping) or len(nested) != 1:
            raise CkfrError(f"The nested mapping is {nested!r}; expected one key, {{'root': {{...}}}}.")
        pairs: list[tuple[str, str]] = []
        todo: list[tuple[str, Any]] = list(nested.items())
        while todo:
            node, below = todo.pop()
            if isinstance(below, Sequence) and not isinstance(below, str):
                below = dict.fromkeys(below)
            if not isinstance(below, Mapping | None):
                raise CkfrError(f"Below {node!r} stands {below!r}; expected a mapping, a list or None.")
            pairs.extend((node, child) for child in below or {})
            todo.extend(reversed(list((below or {}).items())))
        return cls.from_pairs(pairs, classes)

    @classmethod
    def from_wordnet(
        cls, wnids: Sequence[str], *, rule: Literal["first", "shortest"] = "first"
    ) -> "Hierarchy":
        """From WordNet 3.0 noun ids such as ``"n02129165"`` (lion), offline; ``data/wordnet.tsv`` has them.

        WordNet is a graph; ``rule`` says which one hypernym a synset keeps, and `hierarchy.wordnet` says why.
        The whole chain up to *entity* stays, so a path does not depend on which other classes stand by. A
        class above another, as CIFAR-100's whale above its dolphin, gets a leaf of its own (see ``inner`` of
        :meth:`from_pairs`); no two classes of ImageNet-1k, mini- or Tiny-ImageNet do this.
        """
        from ckfr_helpers.hierarchy import wordnet

        checks.check_classes(wnids)
        pairs = wordnet.tree_pairs(wnids, rule)
        names = {node: wordnet.synset(node).name for pair in pairs for node in pair}
        names.update(zip(wnids, wordnet.readable_names(wnids), strict=True))
        return cls.from_pairs(pairs, wnids, names=names, inner="leaf")

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Readable class names in label order."""
        return tuple(map(self.name, self.classes))

    def name(self, node: str) -> str:
        """Readable name of any node."""
        return self.node_names.get(node, node)

    @cached_property
    def root(self) -> str:
        """The one node without a parent."""
        return next(node for node in self.parent.values() if node not in self.parent)

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        """Children of every inner node, in the order they were given."""
        below: dict[str, list[str]] = {}
        for node, above in self.parent.items():
            below.setdefault(above, []).append(node)
        return {node: tuple(kids) for node, kids in below.items()}

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Every node depth first, parents before their children."""
        order, todo = [], [self.root]
        while todo:
            node = todo.pop()
            order.append(node)
            todo.extend(reversed(self.children.get(node, ())))
        return tuple(order)

    @cached_property
    def _label(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.classes)}

    @cached_property
    def _depths(self) -> dict[str, int]:
        depth = {self.root: 0}
        for node in self.nodes[1:]:
            depth[node] = depth[self.parent[node]] + 1
        return depth

    @cached_property
    def _heights(self) -> dict[str, int]:
        height = dict.fromkeys(self.nodes, 0)
        for node in reversed(self.nodes[1:]):
            above = self.parent[node]
            height[above] = max(height[above], height[node] + 1)
        return height

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """Half-open range of leaves below every node in depth-first order; parents first."""
        place = {self.classes[label]: k for k, label in enumerate(self.order())}
        span: dict[str, tuple[int, int]] = {}
        for node in reversed(self.nodes):
            kids = self.children.get(node)
            span[node] = (span[kids[0]][0], span[kids[-1]][1]) if kids else (place[node], place[node] + 1)
        return dict(reversed(span.items()))

    def label(self, name: str) -> int:
        """Label index of a class."""
        if name not in self._label:
            raise CkfrError(f"{name!r} is no class of this hierarchy; its first is {self.classes[0]!r}.")
        return self._label[name]

    def depth(self, node: str) -> int:
        """Edges from the root down to ``node``."""
        return len(self.path_to_root(node)) - 1

    def path_to_root(self, node: str) -> tuple[str, ...]:
        """``node``, its parent, and so on, the root last."""
        if node not in self.parent and node != self.root:
            raise CkfrError(f"Node {node!r} is not in this hierarchy under {self.root!r}.")
        path = [node]
        while path[-1] in self.parent:
            path.append(self.parent[path[-1]])
        return tuple(path)

    def lca(self, a: str, b: str) -> str:
        """Lowest common ancestor of two nodes; a node is its own ancestor."""
        above = set(self.path_to_root(a))
        return next(node for node in self.path_to_root(b) if node in above)

    def order(self) -> np.ndarray:
        """(C,) int64: label indices in depth-first order, so that relatives stand together."""
        return np.array([self._label[n] for n in self.nodes if n in self._label], dtype=np.int64)

    def distances(self, measure: Measure = "path") -> np.ndarray:
        """Distance of every pair of classes.

        With a, b two leaves, c their lowest common ancestor, and depth counted in edges from the root:

        - ``"path"``: edges between them, depth(a) + depth(b) − 2·depth(c). A metric.
        - ``"lca_height"``: edges from c down to its furthest leaf (Deng et al., ECCV 2010; Bertinetto et al.,
          CVPR 2020). An ultrametric. It depends on which classes the tree holds, the other two do not.
        - ``"wu_palmer"``: 1 − 2·(depth(c) + 1) / (depth(a) + depth(b) + 2), one minus the similarity of Wu
          and Palmer (ACL 1994), which counts nodes, so that the root has depth 1. In [0, 1).

        Returns:
            (C, C) float32, symmetric, zero on the diagonal, in label order.
        """
        if measure not in MEASURES:
            raise CkfrError(f"No measure is called {measure!r}; expected one of {', '.join(MEASURES)}.")
        # In depth-first order the leaves below a node stand side by side, so their pairs are a square on the
        # diagonal. Write every branching's value into its square, parents first: the LCA's is what remains.
        level = self._heights if measure == "lca_height" else self._depths
        at_lca = np.zeros((len(self), len(self)), dtype=np.int32)  # (C, C), in tree order
        for node, (start, end) in self._spans.items():
            if len(self.children.get(node, ())) != 1:
                at_lca[start:end, start:end] = level[node]
        place = np.argsort(self.order())  # (C,): where in tree order a label stands
        at_lca = at_lca[np.ix_(place, place)]
        depth = np.array([self._depths[name] for name in self.classes], dtype=np.int32)  # (C,)
        both = depth[:, None] + depth[None, :]
        if measure == "path":
            return (both - 2 * at_lca).astype(np.float32)
        if measure == "wu_palmer":
            return (1 - 2 * (at_lca + 1) / (both + 2)).astype(np.float32)
        return at_lca.astype(np.float32)

    def nearest(self, name: str, k: int = 5, measure: Measure = "path") -> list[tuple[str, float]]:
        """The ``k`` classes nearest to class ``name`` with their distances; equals in tree order."""
        row = self.distances(measure)[self.label(name)]
        order = self.order()
        order = order[order != self.label(name)]
        return [(self.classes[i], float(row[i])) for i in order[np.argsort(row[order], kind="stable")][:k]]

    def subset(self, classes: Sequence[str]) -> "Hierarchy":
        """The same tree with these classes only; its root and chains stay, so only heights can shrink."""
        checks.check_classes(classes)
        _ = [self.label(name) for name in classes]  # each must be one of this tree's
        return Hierarchy(tuple(classes), checks.prune(self.parent, classes), self.node_names)

    def compressed(self) -> "Hierarchy":
        """Without the inner nodes that have one child only (the root too): same branchings, for drawing."""
        kept = {n for n in self.nodes if len(self.children.get(n, ())) != 1}
        parent = {}
        for node in self.nodes:
            above = next((a for a in self.path_to_root(node)[1:] if a in kept), None)
            if node in kept and above is not None:
                parent[node] = above
        # One class alone keeps its root.
        return Hierarchy(self.classes, parent or {self.classes[0]: self.root}, self.node_names)

    def to_pairs(self) -> list[tuple[str, str]]:
        """(parent, child) ids, depth first; :meth:`from_pairs` with ``classes`` gives the same tree back."""
        return [(self.parent[node], node) for node in self.nodes[1:]]

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` of text arrays, without pickle."""
        nodes = {"child": list(self.parent), "parent": list(self.parent.values())}
        files.write_npz(path, classes=self.classes, **nodes, names=json.dumps(self.node_names))

    @classmethod
    def load(cls, path: str | Path) -> "Hierarchy":
        """Read what :meth:`save` wrote; CkfrError for any other file."""
        pairs, classes, names = files.read_npz(path)
        return cls.from_pairs(pairs, classes, names=names)
