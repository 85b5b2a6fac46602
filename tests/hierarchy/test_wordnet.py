"""The WordNet table: what it covers, the rule that makes a tree of it, and the graph against NLTK."""

import csv
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


@pytest.fixture(scope="module")
def nltk_wordnet():
    reader = wordnet.nltk_wordnet()
    if reader is None:
        pytest.skip("WordNet's files are not here; `ckfr fetch wordnet` brings them")
    return reader


@pytest.fixture(scope="module")
def records():
    folder = build_wordnet.find_database()
    if folder is None:
        pytest.skip("WordNet's files are not here; `ckfr fetch wordnet` brings them")
    return build_wordnet.read_database(folder)


def in_nltk(reader, wnid):
    return reader.synset_from_pos_and_offset("n", int(wnid[1:]))


# -- What the table covers ----------------------------------------------------------------------------


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
    assert len(set(wordnet.class_names(name))) == size


def test_label_orders():
    assert wordnet.class_list("imagenet") == tuple(sorted(wordnet.class_list("imagenet")))
    assert wordnet.class_names("cifar10") == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    assert list(wordnet.class_names("cifar100")) == sorted(wordnet.class_names("cifar100"))
    assert set(wordnet.class_list("mini-imagenet")) < set(wordnet.class_list("imagenet"))
    assert set(wordnet.class_list("tiny-imagenet")) < set(wordnet.class_list("imagenet"))


def test_ids_of_any_imagenet_class_are_covered():
    assert not [w for w in build_wordnet.timm_list("imagenet22k") if w not in wordnet.synsets()]


def test_the_photographs_are_covered():
    with open(project_file("photos.csv"), newline="", encoding="utf-8") as file:
        wnids = list(dict.fromkeys(row["wnid"] for row in csv.DictReader(file)))
    h = Hierarchy.from_wordnet(wnids)
    assert len(h) >= 18
    assert h.compressed().distances("lca_height").max() >= 4


@pytest.mark.parametrize(
    ("superclass", "members"),
    {
        "n00015388": ["beaver", "shark", "bee", "chimpanzee", "crab", "turtle", "mouse", "fox", "bear"],
        "n00017222": ["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree", "orchid", "tulip"],
        "n07555863": ["apple", "mushroom", "orange", "pear", "sweet_pepper"],
        "n03100490": ["bicycle", "bus", "motorcycle", "pickup_truck", "train", "rocket", "streetcar", "tank"],
        "n03405725": ["bed", "chair", "couch", "table", "wardrobe", "lamp"],
        "n00007846": ["baby", "boy", "girl", "man", "woman"],
        "n03094503": ["bottle", "bowl", "can", "cup"],
    }.items(),
)
def test_cifar_words_got_the_right_sense(superclass, members):
    ids = dict(zip(wordnet.class_names("cifar100"), wordnet.class_list("cifar100"), strict=True))
    for name in members:
        assert superclass in wordnet.ancestor_distances(ids[name]), name


# -- The tree -----------------------------------------------------------------------------------------


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


def test_the_path_does_not_depend_on_the_other_classes():
    wnids = wordnet.class_list("mini-imagenet")
    alone = Hierarchy.from_wordnet([wnids[70], wnids[3]])
    together = Hierarchy.from_wordnet(wnids)
    assert alone.distances()[0, 1] == together.distances()[70, 3]


def test_only_cifar100_has_a_class_above_another():
    groups = {
        name: [n for n in Hierarchy.from_wordnet(wordnet.class_list(name)).nodes if n.endswith(GROUP)]
        for name in SIZES
    }
    whale, dolphin, seal = (wordnet.class_list("cifar100")[label] for label in (95, 30, 72))
    assert groups == {**{name: [] for name in SIZES}, "cifar100": [whale + GROUP]}
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


# -- The graph ----------------------------------------------------------------------------------------


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


def test_graph_distances_equal_nltk(nltk_wordnet):
    chance = random.Random(1)
    wnids = chance.sample(wordnet.class_list("imagenet"), 60) + chance.sample(sorted(wordnet.synsets()), 40)
    theirs = [in_nltk(nltk_wordnet, w) for w in wnids]
    expected = np.array([[a.shortest_path_distance(b) for b in theirs] for a in theirs])
    np.testing.assert_array_equal(wordnet.graph_distances(wnids), expected)


def test_wu_palmer_equals_nltk_where_the_tree_is_all_there_is(nltk_wordnet):
    """For synsets without a second hypernym above them, NLTK's Wu–Palmer has no choice to make either."""

    def single(wnid):
        return all(len(wordnet.synset(a).hypernyms) < 2 for a in wordnet.ancestor_distances(wnid))

    wnids = random.Random(2).sample([w for w in wordnet.class_list("imagenet") if single(w)], 40)
    theirs = [in_nltk(nltk_wordnet, w) for w in wnids]
    h = Hierarchy.from_wordnet(wnids)
    expected = np.array([[1 - a.wup_similarity(b) for b in theirs] for a in theirs])
    np.testing.assert_allclose(h.distances("wu_palmer"), expected, atol=1e-6)
    expected = np.array([[a.shortest_path_distance(b) for b in theirs] for a in theirs])
    np.testing.assert_array_equal(h.distances("path"), expected)


def test_names_and_hypernyms_equal_nltk(nltk_wordnet):
    for wnid in random.Random(3).sample(sorted(wordnet.synsets()), 300):
        row, theirs = wordnet.synset(wnid), in_nltk(nltk_wordnet, wnid)
        assert row.name == theirs.lemma_names()[0].replace("_", " ")
        assert set(row.hypernyms) == {
            f"n{above.offset():08d}" for above in theirs.hypernyms() + theirs.instance_hypernyms()
        }


# -- The builder --------------------------------------------------------------------------------------


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


def test_the_database_is_laid_out_for_nltk(tmp_path, monkeypatch):
    """From a package without `lexnames`, as Debian's, whose files others may write to, as under umask 002."""
    from ckfr_helpers.datasets.fetching import wordnet as wordnet_db

    installed = tmp_path / "installed"
    installed.mkdir()
    for name in wordnet_db.FILES:
        (installed / name).write_text("x\n")
        (installed / name).chmod(0o664)
    (installed / "data.noun").write_text("02129165 05 n 01 lion 0 000 | a lion\n")
    monkeypatch.setattr(wordnet_db, "DEBIAN", installed)
    place = wordnet_db.fetch(tmp_path / "data")
    corpus = place / "corpora" / "wordnet"
    assert {p.name for p in corpus.iterdir()} == {*wordnet_db.FILES, "lexnames"}
    assert not any(p.stat().st_mode & 0o022 for p in [place, corpus.parent, corpus, *corpus.iterdir()])
    rows = (corpus / "lexnames").read_text().splitlines()
    assert len(rows) == 45
    assert rows[5].split() == ["05", "noun.animal", "1"]
    assert rows[29].split() == ["29", "verb.body", "2"]
    assert rows[44].split() == ["44", "adj.ppl", "3"]
    (corpus / "data.noun").write_text("kept")  # a second call leaves what is there
    assert wordnet_db.fetch(tmp_path / "data") == place
    assert (corpus / "data.noun").read_text() == "kept"


def test_no_source_gives_one_sentence(tmp_path, monkeypatch):
    import nltk

    from ckfr_helpers.datasets.fetching import wordnet as wordnet_db

    def no_debian(*_arguments):
        raise CkfrError("There is no apt-get.")

    monkeypatch.setattr(wordnet_db, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(wordnet_db, "fetch_deb", no_debian)
    monkeypatch.setattr(nltk, "download", lambda *_a, **_k: False)
    with pytest.raises(CkfrError, match=r"no apt-get.*NLTK"):
        wordnet_db.fetch(tmp_path / "data")
    assert not (tmp_path / "data" / "wordnet").exists()
