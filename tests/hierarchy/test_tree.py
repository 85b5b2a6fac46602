"""Trees and their distances, against brute force on random trees."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckfr_helpers.hierarchy import MEASURES, Hierarchy, load_pseudo_distances, wordnet
from ckfr_helpers.runtime import CkfrError

SMALL = [
    ("thing", "animal"),
    ("thing", "pan"),
    ("animal", "bird"),
    ("animal", "cat"),
    ("cat", "lion"),
    ("cat", "tiger"),
    ("bird", "robin"),
]


@st.composite
def trees(draw) -> Hierarchy:
    """A random tree: node k hangs on any earlier node; leaves in random label order."""
    size = draw(st.integers(2, 25))
    pairs = [(f"n{draw(st.integers(0, k - 1))}", f"n{k}") for k in range(1, size)]
    inner = {above for above, _ in pairs}
    leaves = draw(st.permutations([below for _, below in pairs if below not in inner]))
    return Hierarchy.from_pairs(draw(st.permutations(pairs)), leaves)


def slow_path(h: Hierarchy, node: str) -> list[str]:
    return [node] if node == h.root else [node, *slow_path(h, h.parent[node])]


def slow_distance(h: Hierarchy, a: str, b: str, measure: str) -> float:
    """From the definitions, one pair at a time."""
    up_a, up_b = slow_path(h, a), slow_path(h, b)
    lca = next(node for node in up_a if node in up_b)
    if measure == "path":
        return up_a.index(lca) + up_b.index(lca)
    if measure == "wu_palmer":
        return 1 - 2 * len(slow_path(h, lca)) / (len(up_a) + len(up_b))
    return max(slow_path(h, leaf).index(lca) for leaf in h.classes if lca in slow_path(h, leaf))


@settings(max_examples=30, deadline=None)
@given(trees(), st.sampled_from(MEASURES))
def test_distances_equal_brute_force(h, measure):
    assert [h.depth(node) for node in h.nodes] == [len(slow_path(h, node)) - 1 for node in h.nodes]
    slow = [[slow_distance(h, a, b, measure) for b in h.classes] for a in h.classes]
    fast = h.distances(measure)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, np.array(slow), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(trees(), st.data())
def test_subset_keeps_paths_and_wu_palmer(h, data):
    some = data.draw(st.lists(st.sampled_from(h.classes), min_size=1, unique=True))
    part = h.subset(some)
    assert part.classes == tuple(some)
    labels = [h.label(c) for c in some]
    for measure in ("path", "wu_palmer"):
        np.testing.assert_array_equal(part.distances(measure), h.distances(measure)[np.ix_(labels, labels)])
    assert (part.distances("lca_height") <= h.distances("lca_height")[np.ix_(labels, labels)]).all()
    assert part.parent == Hierarchy.from_pairs(h.to_pairs(), some).parent


@settings(max_examples=20, deadline=None)
@given(trees())
def test_order_puts_every_branch_together(h):
    order = h.order()
    assert sorted(order) == list(range(len(h)))
    for node in h.nodes:
        places = [i for i, label in enumerate(order) if node in slow_path(h, h.classes[label])]
        assert places == list(range(places[0], places[-1] + 1))


@settings(max_examples=20, deadline=None)
@given(trees())
def test_compressed_branches_everywhere_and_keeps_the_nesting(h):
    small = h.compressed()
    assert small.classes == h.classes
    if len(h) > 1:
        assert all(len(kids) > 1 for kids in small.children.values())
        for a in h.classes:
            for b in h.classes:
                assert small.lca(a, b) == h.lca(a, b)


@settings(max_examples=10, deadline=None)
@given(trees())
def test_save_and_load(tmp_path_factory, h):
    path = tmp_path_factory.mktemp("h") / "tree.npz"
    h.save(path)
    assert Hierarchy.load(path) == h
    with np.load(path, allow_pickle=False) as file:  # every array readable without pickle
        assert {key: file[key].dtype.kind for key in file} == dict.fromkeys(file, "U")


def test_worked_example():
    h = Hierarchy.from_pairs(SMALL, ["lion", "tiger", "robin", "pan"])
    assert h.distances("path").tolist() == [[0, 2, 4, 4], [2, 0, 4, 4], [4, 4, 0, 4], [4, 4, 4, 0]]
    assert h.distances("lca_height").tolist() == [[0, 1, 2, 3], [1, 0, 2, 3], [2, 2, 0, 3], [3, 3, 3, 0]]
    assert h.distances("wu_palmer")[0].tolist() == pytest.approx([0, 1 - 6 / 8, 1 - 4 / 8, 1 - 2 / 6])
    assert h.root == "thing"
    assert h.names == h.classes
    assert h.nearest("lion", 2) == [("tiger", 2.0), ("robin", 4.0)]
    assert Hierarchy.from_pairs(SMALL).classes == ("pan", "lion", "tiger", "robin")
    assert h.lca("lion", "robin") == "animal"
    parts = {"animal": {"cat": ["lion", "tiger"], "bird": ["robin"]}, "pan": None}
    assert set(Hierarchy.from_nested({"thing": parts}).to_pairs()) == set(SMALL)
    one = Hierarchy.from_pairs([("thing", "lion")])
    assert [one.distances(measure).tolist() for measure in MEASURES] == [[[0]]] * 3


@pytest.mark.parametrize(
    ("pairs", "classes", "said"),
    [
        ([("a", "b"), ("b", "c"), ("c", "a")], None, ["cycle", "'a'", "'b'", "'c'"]),
        ([("a", "a")], None, ["cycle", "'a'"]),
        ([("a", "b"), ("c", "d")], None, ["several roots", "'a'", "'c'"]),
        ([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], None, ["'d'", "child twice", "'b'", "'c'"]),
        ([("a", "b"), ("a", "b")], None, ["'b'", "child twice"]),
        (SMALL, ["lion", "lion"], ["'lion'", "2 times"]),
        (SMALL, ["lion", "unicorn"], ["'unicorn'"]),
        (SMALL, ["lion", "cat"], ["'cat'", "no leaf", "'lion'"]),
        (SMALL, [], ["at least one"]),
        (SMALL, "lion", ["'lion'", "list"]),
        ([], None, ["no pairs"]),
        ([("a", "")], None, ["''"]),
        ([("a", "b", "c")], None, ["no pair"]),
        (["ab"], None, ["'ab' is no pair"]),
        ([3], None, ["3 is no pair"]),
    ],
)
def test_mistakes_name_the_offender(pairs, classes, said):
    with pytest.raises(CkfrError) as caught:
        Hierarchy.from_pairs(pairs, classes)
    for word in said:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_mistakes():
    h = Hierarchy.from_pairs(SMALL)
    for call, word in [
        (lambda: h.distances("euclid"), "euclid"),
        (lambda: h.subset(["lion", "dodo"]), "dodo"),
        (lambda: h.depth("dodo"), "dodo"),
        (lambda: h.label("cat"), "'cat'"),
        (lambda: Hierarchy.from_nested({"a": None, "b": None}), "expected one key"),
        (lambda: Hierarchy.from_nested(["a"]), "expected one key"),
        (lambda: Hierarchy.from_nested({"a": {"b": 3}}), "'b'"),
        (lambda: Hierarchy.from_wordnet(["n02129165", "n99999999"]), "n99999999"),
        (lambda: Hierarchy.from_wordnet(["n00001740"]), "no pairs"),
        (lambda: Hierarchy.from_wordnet(["n02129165"], rule="last"), "last"),
    ]:
        with pytest.raises(CkfrError, match=word):
            call()


TABLE = "parent,child,note\nthing,animal,\nthing,pan,x\nanimal,lion,\nanimal,robin,\n"


def test_a_table_gives_the_tree_of_its_pairs(tmp_path):
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "t.csv").write_text(TABLE + "\n cat , Löwe ,\nanimal,cat,\n", encoding=encoding)
        pairs = [("thing", "pan"), ("thing", "animal"), ("animal", "lion"), ("animal", "cat")]
        classes = ["pan", "Löwe", "lion"]
        expected = Hierarchy.from_pairs([*pairs, ("cat", "Löwe")], classes)
        assert Hierarchy.from_csv(tmp_path / "t.csv", classes) == expected


@pytest.mark.parametrize(
    ("text", "classes", "said"),
    [
        (TABLE + "pan,lion,\n", None, "lines 4 and 6: Node 'lion' is a child twice, of 'animal' and 'pan'"),
        (TABLE + "lion,thing,\n", None, "lines 2 and 4 and 6: The pairs run in a cycle"),
        (TABLE + "rock,stone,\n", None, "lines 2 and 6: The tree has several roots, 'thing', 'rock'"),
        (TABLE + "animal,,\n", None, r"line 6: \('animal', ''\) is no pair"),
        (TABLE, ["animal", "pan"], "line 4: Class 'animal' is no leaf: 'lion' lies below it"),
        ("parent,kid\na,b\n", None, "no column 'child'"),
        ("parent,child\nthing,L\xf6we\n", None, "UTF-8"),
    ],
)
def test_mistakes_in_a_table_name_file_and_line(tmp_path, text, classes, said):
    (tmp_path / "t.csv").write_bytes(text.encode("latin1"))
    with pytest.raises(CkfrError, match=f"t.csv.*{said}|{said}"):
        Hierarchy.from_csv(tmp_path / "t.csv", classes)
    with pytest.raises(CkfrError, match=r"missing\.csv cannot be read"):
        Hierarchy.from_csv(tmp_path / "missing.csv")


def test_an_inner_class_becomes_a_leaf_when_asked():
    pairs = [("sea", "whale"), ("whale", "dolphin"), ("whale", "orca"), ("sea", "seal")]
    h = Hierarchy.from_pairs(pairs, ["whale", "dolphin", "seal"], inner="leaf")
    assert h.classes == ("whale", "dolphin", "seal")
    assert h.parent == {"whale+": "sea", "whale": "whale+", "dolphin": "whale+", "seal": "sea"}
    assert h.name("whale+") == "whale (all)"
    assert h.distances("lca_height")[0].tolist() == [0, 1, 2]
    root_too = Hierarchy.from_pairs(pairs, ["sea", "seal"], inner="leaf")
    assert root_too.parent == {"seal": "sea+", "sea": "sea+"}


def test_deep_trees_need_no_recursion():
    deep = 1500
    pairs = [(f"n{k}", f"n{k + 1}") for k in range(deep)] + [("n0", "pan")]
    h = Hierarchy.from_pairs(pairs)
    assert h.distances("path").tolist() == [[0, deep + 1], [deep + 1, 0]]
    assert h.depth(f"n{deep}") == deep
    assert h.compressed().to_pairs() == [("n0", f"n{deep}"), ("n0", "pan")]


def test_load_refuses_what_is_no_tree(tmp_path):
    for name, write in {
        "missing.npz": lambda p: None,
        "text.npz": lambda p: p.write_text("hello"),
        "other.npz": lambda p: np.savez(p, x=np.arange(3)),
        "pickle.npz": lambda p: np.savez(p, classes=np.array([{}], dtype=object), child=1, parent=1, names=1),
    }.items():
        write(tmp_path / name)
        with pytest.raises(CkfrError, match=f"{name} is no saved hierarchy"):
            Hierarchy.load(tmp_path / name)


def test_a_hierarchy_survives_pickling():
    """Data loaders that spawn their workers send it through pickle."""
    h = Hierarchy.from_pairs(SMALL)
    h.distances()
    assert pickle.loads(pickle.dumps(h)) == h


# ------------------------------------------------------------------------------------------------
# The original demo's distances


def table(h: Hierarchy, number=float) -> dict[str, float]:
    d = h.distances()
    return {f"{a}-{b}": number(d[i, j]) for i, a in enumerate(h.classes) for j, b in enumerate(h.classes)}


@pytest.mark.parametrize("number", [float, int, np.float32])
def test_pseudo_distances_are_read_back(tmp_path, number):
    h = Hierarchy.from_wordnet(wordnet.class_list("mini-imagenet")[:12])
    np.save(tmp_path / "d.npy", table(h, number), allow_pickle=True)
    classes, matrix = load_pseudo_distances(tmp_path / "d.npy")
    assert classes == tuple(sorted(h.classes))
    np.testing.assert_array_equal(matrix, h.subset(classes).distances())
    assert matrix.dtype == np.float32
    chosen, part = load_pseudo_distances(tmp_path / "d.npy", [h.classes[5], h.classes[2]])
    assert chosen == (h.classes[5], h.classes[2])
    assert part[0, 1] == h.distances()[5, 2]


class Payload:
    """Runs a command when unpickled by an ordinary unpickler."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_a_malicious_pickle_is_refused_unexecuted(tmp_path):
    mark = tmp_path / "executed"
    np.save(tmp_path / "d.npy", {"a-b": Payload(os.system, f"touch {mark}")}, allow_pickle=True)
    with pytest.raises(CkfrError, match=r"refused.*system"):
        load_pseudo_distances(tmp_path / "d.npy")
    assert not mark.exists()
    np.load(tmp_path / "d.npy", allow_pickle=True)  # the payload is live: an ordinary load does run it
    assert mark.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lion-tiger": None}, "lion-tiger"),
        ({"lion-tiger": 9.0}, "'lion' to 'tiger' is 9.0 and 2.0 back"),
        ({"lion-tiger": float("nan")}, "'lion' to 'tiger' is nan"),
        ({"lion": 1.0}, "key 'lion'"),
        ({"lion-tiger": "far"}, "str for 'lion-tiger'"),
    ],
)
def test_faulty_tables_are_named(tmp_path, change, said):
    content = table(Hierarchy.from_pairs(SMALL))
    content.update(change)
    np.save(tmp_path / "d.npy", {k: v for k, v in content.items() if v is not None}, allow_pickle=True)
    with pytest.raises(CkfrError, match=said):
        load_pseudo_distances(tmp_path / "d.npy")


def test_other_files_are_refused(tmp_path):
    np.save(tmp_path / "numbers.npy", np.eye(3))
    np.save(tmp_path / "list.npy", np.array(None, dtype=object), allow_pickle=True)
    np.save(tmp_path / "empty.npy", {}, allow_pickle=True)
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "cut.npy", {"a-b": 1.0, "b-a": 1.0}, allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-20])
    for name in ("numbers", "list", "empty", "text", "cut", "missing"):
        with pytest.raises(CkfrError, match=f"{name}.npy"):
            load_pseudo_distances(tmp_path / f"{name}.npy")
    np.save(tmp_path / "good.npy", table(Hierarchy.from_pairs(SMALL)), allow_pickle=True)
    with pytest.raises(CkfrError, match="dodo"):
        load_pseudo_distances(tmp_path / "good.npy", ["lion", "dodo"])
    with pytest.raises(CkfrError, match="2 times"):
        load_pseudo_distances(tmp_path / "good.npy", ["lion", "lion"])
