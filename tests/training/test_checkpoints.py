"""A run's folder: held by one process, checked bit by bit, and tied to its classes."""

import multiprocessing

import pytest
import torch

from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training.checkpoints import (
    load_checkpoint,
    pack_hierarchy,
    refuse_other_classes,
    run_folder,
    save_checkpoint,
    unpack_hierarchy,
)

TREE = Hierarchy.from_pairs(
    [("thing", "cat"), ("cat", "lion"), ("cat", "tiger"), ("thing", "pan")], names={"pan": "frying pan"}
)


def hold(folder, ready, done):
    with run_folder(folder):
        ready.set()
        done.wait(60)


def test_a_folder_is_held_by_one_process_that_is_named(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(60)
        half = tmp_path / ".last.pt.1.tmp"
        half.write_text("the other is writing this")
        with (
            pytest.raises(CkfrError, match=rf"in use by process {other.pid} on \S+ since \d{{4}}-"),
            run_folder(tmp_path),
        ):
            pass
        assert half.exists()
    finally:
        done.set()
        other.join()
    with run_folder(tmp_path):  # free again, and what was left half written is gone
        assert not half.exists()


def test_a_folder_in_which_nothing_came_about_is_not_left(tmp_path):
    with run_folder(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_folders_place_is_said(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(CkfrError, match=r"run cannot be written"), run_folder(tmp_path / "run"):
        pass


def test_a_flipped_bit_of_content_is_noticed(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.zeros(4000), "moments": torch.arange(1000.0)})
    whole = path.read_bytes()
    for place in (len(whole) // 3, whole.index(torch.arange(1000.0).numpy().tobytes()) + 123):
        damaged = bytearray(whole)
        damaged[place] ^= 8
        path.write_bytes(damaged)
        with pytest.raises(CkfrError, match=r"last\.pt is damaged") as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    assert load_checkpoint(path)["moments"][7] == 7
    with pytest.raises(CkfrError, match="lacks 'classes'"):
        load_checkpoint(path, ("weights", "classes"))


def test_a_hierarchy_survives_and_other_classes_are_refused(tmp_path):
    save_checkpoint(tmp_path / "best.pt", pack_hierarchy(TREE))
    packed = load_checkpoint(tmp_path / "best.pt")
    back = unpack_hierarchy(packed)
    assert (back.classes, back.names, back.to_pairs()) == (TREE.classes, TREE.names, TREE.to_pairs())
    refuse_other_classes(packed, TREE, "The run")
    others = {
        "label 1 is 'tiger' there and 'pan' in this data": Hierarchy.from_pairs(
            [("thing", "lion"), ("thing", "pan"), ("thing", "tiger")]
        ),
        "has 3 classes, this data 2": TREE.subset(("lion", "tiger")),
        "only one of the two trees has": Hierarchy.from_pairs(
            [("thing", "lion"), ("thing", "tiger"), ("thing", "pan")]
        ),
    }
    for difference, other in others.items():
        with pytest.raises(CkfrError, match=difference):
            refuse_other_classes(packed, other, "The run")
