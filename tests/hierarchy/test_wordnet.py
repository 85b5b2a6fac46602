"""The WordNet table: what it covers, the rule that makes a tree of it, and shortest paths in the graph."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from ckfr_helpers.hierarchy import Hierarchy, wordnet
from ckfr_helpers.hierarchy.checks import GROUP
from ckfr_helpers.runtime import CkfrError, project_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import build_wordnet  # noqa: E402

LION, TIGER, PAN, DOG, WOLF = "n02129165", "n02129604", "n03400231", "n02084071", "n02114100"
SIZES = {"imagenet": 1000, "mini-imagenet": 100, "tiny-imagenet": 200, "cifar10": 10, "cifar100": 100}
SIZES |= {"voc2007": 20, "coco": 80}


@pytest.fixture(scope="module")
def records():
    folder = build_wordnet.find_database()
    if folder is None:
        pytest.skip("WordNet's files are not here; `ckfr fetch wordnet` brings them")
    return build_wordnet.read_database(folder)


def test_the_graph_is_whole_and_has_one_root():
    table = wordnet.synsets()
    assert {above for row in table.values() for above in row.hypernyms} <= table.keys()
    assert [wnid for wnid, row in table.items() if not row.hypernyms] == [wordnet.ROOT]
    assert len(table) > 21_841


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_every_data_set_has_its_tree(name, size):
    wnids = wordnet.class_list(name)
    assert len(set(wnids)) == size
    h = Hierarchy.from_wordnet(wnids)
    assert h.classes == wnids
    assert h.root == wordnet.ROOT
    assert len(set(h.names)) == size
    names = wordnet.class_names(name)
    assert len(set(names)) == size
    by_id = name.endswith("imagenet")
    assert list(wnids if by_id else names) == sorted(wnids if by_id else names)
    assert not by_id or set(wnids) <= set(wordnet.class_list("imagenet"))


def test_cifar_words_got_the_right_sense():
    ids = dict(zip(wordnet.class_names("cifar100"), wordnet.class_list("cifar100"), strict=True))
    for superclass, members in {
        "n00015388": ["beaver", "crab", "turtle", "mouse"],
        "n07555863": ["apple", "mushroom", "orange", "pear"],
        "n03100490": ["train", "rocket", "tank"],
        "n00007846": ["boy", "girl"],
        "n03094503": ["bowl", "can", "cup"],
    }.items():
        for name in members:
            assert superclass in wordnet.ancestor_distances(ids[name]), name


def test_vocs_and_cocos_classes_agree_where_both_have_them():
    voc, coco = (
        dict(zip(wordnet.class_names(name), wordnet.class_list(name), strict=True))
        for name in ("voc2007", "coco")
    )
    other = {"aeroplane": "airplane", "diningtable": "dining_table", "motorbike": "motorcycle"}
    other |= {"pottedplant": "potted_plant", "sofa": "couch", "tvmonitor": "tv"}
    assert {name: coco[other.get(name, name)] for name in voc} == voc
    for above, members in {
        "n07555863": ["apple", "broccoli", "cake"],
        "n03575240": ["keyboard", "mouse"],
        "n00021939": ["bowl", "teddy_bear"],
    }.items():
        assert all(above in wordnet.ancestor_distances(coco[name]) for name in members)


def test_the_rule_keeps_the_first_hypernym():
    assert [wordnet.synset(w).name for w in wordnet.synset(DOG).hypernyms] == ["canine", "domestic animal"]
    assert wordnet.synset(wordnet.parent(DOG)).name == "canine"
    assert wordnet.synset(wordnet.parent(DOG, "shortest")).name == "domestic animal"
    assert wordnet.parent(wordnet.ROOT) is None
    first, shortest = (Hierarchy.from_wordnet([DOG, WOLF, PAN], rule=rule) for rule in ("first", "shortest"))
    assert first.distances()[0, 1] == 2
    assert shortest.distances()[0, 1] > 8


def test_a_tree_path_is_a_graph_path_so_never_shorter():
    wnids = wordnet.class_list("imagenet")
    graph = wordnet.graph_distances(wnids)
    for rule in ("first", "shortest"):
        assert (Hierarchy.from_wordnet(wnids, rule=rule).distances() >= graph).all()


def test_only_cifar100_and_coco_have_classes_above_others():
    groups = {
        name: [n for n in Hierarchy.from_wordnet(wordnet.class_list(name)).nodes if n.endswith(GROUP)]
        for name in SIZES
    }
    whale, dolphin, seal = (wordnet.class_list("cifar100")[label] for label in (95, 30, 72))
    cake, sandwich = (wordnet.find(name)[0] for name in ("cake", "sandwich"))
    assert {name: found for name, found in groups.items() if found} == {
        "cifar100": [whale + GROUP],
        "coco": [cake + GROUP, sandwich + GROUP],
    }
    h = Hierarchy.from_wordnet(wordnet.class_list("cifar100"))
    assert h.lca(whale, dolphin) == whale + GROUP
    graph = wordnet.graph_distances([whale, dolphin, seal])
    ours = h.subset([whale, dolphin, seal]).distances()
    np.testing.assert_array_equal(ours - graph, [[0, 1, 1], [1, 0, 0], [1, 0, 0]])


def test_names_are_distinct_and_readable():
    cranes = wordnet.find("Crane")
    birds_and_machines = [w for w in cranes if w in wordnet.class_list("imagenet")]
    names = wordnet.readable_names(birds_and_machines)
    assert names == ("crane (wading bird)", "crane (lifting device)")
    assert wordnet.readable_names([LION]) == ("lion",)


def test_mistakes_name_the_offender():
    for call, word in [
        (lambda: wordnet.synset("n00000000"), "n00000000"),
        (lambda: wordnet.class_list("imagenot"), "imagenot.*cifar100"),
        (lambda: wordnet.graph_distances(["n00000000"]), "n00000000"),
        (lambda: wordnet.parent(LION, "longest"), "longest"),
    ]:
        with pytest.raises(CkfrError, match=word):
            call()


def slow_graph_distance(a: str, b: str) -> int:
    """Breadth first through hypernyms, from both ends, written apart from the package."""

    def up(start):
        seen, frontier, steps = {start: 0}, {start}, 0
        while frontier:
            steps += 1
            frontier = {h for node in frontier for h in wordnet.synset(node).hypernyms} - seen.keys()
            seen.update(dict.fromkeys(frontier, steps))
        return seen

    ups = up(a), up(b)
    return min(ups[0][node] + ups[1][node] for node in ups[0].keys() & ups[1].keys())


def test_graph_distances_equal_breadth_first_search():
    wnids = random.Random(0).sample(sorted(wordnet.synsets()), 60)
    slow = np.array([[slow_graph_distance(a, b) for b in wnids] for a in wnids])
    fast = wordnet.graph_distances(wnids)
    assert fast.dtype == np.float32
    np.testing.assert_array_equal(fast, slow)


def test_the_committed_table_is_what_the_builder_writes(records):
    assert build_wordnet.build(records) == project_file("wordnet.tsv").read_text(encoding="utf-8")


def test_the_parser_reads_the_documented_format(tmp_path):
    (tmp_path / "data.noun").write_text(
        "  1 a licence line\n"
        "02129165 05 n 03 lion 0 king_of_beasts 0 Panthera_leo 0 004 @ 02127808 n 0000 #m 02128120 n 0000 "
        "~ 02129463 n 0000 @i 02129991 n 0000 | large gregarious predatory feline  \n"
        "02127808 05 n 01 big_cat 0 000 | any of several large cats\n"
    )
    records = build_wordnet.read_database(tmp_path)
    assert records[LION].lemmas == ("lion", "king of beasts", "Panthera leo")
    assert records[LION].hypernyms == ("n02127808", "n02129991")
    assert records["n02127808"].hypernyms == ()
    (tmp_path / "data.noun").write_text("02127808 05 n 01 big_cat 0 000 | any of several large cats\n")
    with pytest.raises(CkfrError, match=r"not WordNet 3\.0"):
        build_wordnet.read_database(tmp_path)
