"""`ckfr retrieve` from a folder of drawn pictures to a ranked sheet, and what it refuses."""

import csv
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ckfr_helpers.__main__ import main
from ckfr_helpers.models.classifier import Classifier, build_model
from ckfr_helpers.retrieval import command
from ckfr_helpers.retrieval.answer import QUERY_CLASSES, rank
from ckfr_helpers.retrieval.collection import open_collection
from ckfr_helpers.retrieval.descriptors import describe, describe_classes
from ckfr_helpers.retrieval.pictures import fit, picture_features, read_picture
from ckfr_helpers.retrieval.regions import inside
from ckfr_helpers.runtime import CkfrError


def small(*_: object) -> Classifier:
    torch.manual_seed(0)
    stages = nn.Sequential(nn.Conv2d(3, 24, 8, stride=8), nn.ReLU())
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return Classifier(stages, neck, nn.Linear(24, 12), name="small", gap_linear=True).eval()


def patch(seed: int) -> np.ndarray:
    """Stripes of two colours (48, 48, 3): one object."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (1, 2, 3), dtype=np.uint8).repeat(48, 0).repeat(4, 1)[:, [*range(8)] * 6]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve pictures 96 wide and 64 high; object 1 lies in the first three, each of its own otherwise."""
    monkeypatch.setattr(command, "build_model", small)
    monkeypatch.setenv("CKFR_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CKFR_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        scene = np.full((64, 96, 3), 128, np.uint8)
        scene[8:56, 8:56] = patch(1 if number < 3 else 10 + number)
        scene[40:56, 72:88] = patch(100 + number)[:16, :16]
        Image.fromarray(scene).save(tmp_path / "pictures" / f"p{number:02}.png")
    return tmp_path / "pictures"


def said(capsys, *arguments: object) -> str:
    """What a command that must fail says on standard error."""
    assert main(["retrieve", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ckfr: ")
    assert error.count("\n") == 1
    return error


def test_a_box_finds_the_same_object_again(folder, tmp_path, capsys):
    assert main(["retrieve", "index", str(folder), "--size", "96", "--quiet"]) == 0
    assert "12 pictures" in capsys.readouterr().out
    box = ["--box", "8", "8", "55", "55"]
    for online in ("0", "6"):
        asked = ["retrieve", "search", str(folder / "p00.png"), *box, "--top", "5", "--online", online]
        assert main([*asked, "--out", str(tmp_path / online)]) == 0
        assert "ranked.png" in capsys.readouterr().out
        with open(tmp_path / online / "ranked.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["rank"] for row in rows] == list("12345")
        assert {row["picture"] for row in rows[:2]} == {"p01.png", "p02.png"}  # and never the query itself
        assert "p00.png" not in {row["picture"] for row in rows}
        with Image.open(tmp_path / online / "ranked.png") as sheet:
            assert min(sheet.size) > 300


def test_stored_descriptors_rank_and_the_querys_classes_rank_the_first_again(folder, tmp_path):
    main(["retrieve", "index", str(folder), "--size", "96", "--quiet"])
    collection, model, box = (
        open_collection(tmp_path / "runs" / "collection"),
        small(),
        [8.0, 8.0, 55.0, 55.0],
    )
    picture, ranked = rank(model, collection, folder / "p00.png", box, 4, 12)
    features = torch.cat(
        [picture_features(model, fit(read_picture(folder / n), 96)[None]) for n in collection.names]
    )
    part = inside(features[:1], box, (64, 96))
    stored = describe(features, "gem") @ describe(part, "gem")[0]
    first = [row for row in stored.argsort(descending=True).tolist() if row != 0]
    crop = fit(picture[:, 8:56, 8:56], 96)
    classes = model(model.normalize(crop[None]))[0].topk(QUERY_CLASSES).indices
    weight = model.classifier.weight
    again = describe_classes(features, weight, classes) @ describe_classes(part, weight, classes)[0]
    assert [row for row, _ in ranked] == sorted(first[:4], key=lambda row: -again[row]) + first[4:]
    torch.testing.assert_close(
        torch.tensor([s for _, s in ranked[:4]]), again[[row for row, _ in ranked[:4]]]
    )
    torch.testing.assert_close(
        torch.tensor([s for _, s in ranked[4:]]), stored[[row for row, _ in ranked[4:]]]
    )


def test_a_query_is_joined_by_its_nearest_and_never_by_its_own_picture(folder, tmp_path):
    main(["retrieve", "index", str(folder), "--size", "96", "--quiet"])
    collection, model = open_collection(tmp_path / "runs" / "collection"), small()
    box = [8.0, 8.0, 55.0, 55.0]
    _, plain = rank(model, collection, folder / "p00.png", box, 0, 12)
    _, joined = rank(model, collection, folder / "p00.png", box, 0, 12, expansion=2)
    stored = torch.from_numpy(np.array(collection.descriptors))
    own = inside(picture_features(model, fit(read_picture(folder / "p00.png"), 96)[None]), box, (64, 96))
    query = describe(own, "gem")[0] + stored[[row for row, _ in plain[:2]]].sum(0)
    expected = stored @ (query / query.norm())
    assert sorted(row for row, _ in joined) == list(range(1, 12))
    torch.testing.assert_close(torch.tensor([s for _, s in joined]), expected[[row for row, _ in joined]])


def test_a_ground_truth_is_scored(folder, tmp_path, capsys):
    one = {"bbx": [8, 8, 55, 55], "easy": [0], "hard": [1], "junk": []}
    truth = {"imlist": [f"p{n:02}" for n in range(1, 12)], "qimlist": ["p00"], "gnd": [one]}
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(truth))
    asked = [
        "retrieve",
        "evaluate",
        str(folder),
        "--truth",
        str(tmp_path / "gnd.pkl"),
        "--size",
        "96",
        "--quiet",
    ]
    assert main(asked) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][-3:] == ["easy", "medium", "hard"]
    assert lines[1] == ["mAP", "1.0000", "1.0000", "1.0000"]
    assert [line[0] for line in lines[2:]] == ["mP@1", "mP@5", "mP@10"]
    truth["gnd"][0]["hard"] = []
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(truth))
    main(asked)
    assert capsys.readouterr().out.splitlines()[1].split() == ["mAP", "1.0000", "1.0000", "-"]


def test_what_is_wrong_is_said_in_one_sentence(folder, tmp_path, capsys, monkeypatch):
    first, truth = folder / "p00.png", tmp_path / "gnd.pkl"
    (tmp_path / "none").mkdir()
    assert "no pictures in" in said(capsys, "index", tmp_path / "none")
    assert "no descriptor 'vlad'" in said(capsys, "index", folder, "--descriptor", "vlad")
    assert "no collection in" in said(capsys, "search", first)
    main(["retrieve", "index", str(folder), "--size", "96", "--quiet"])
    assert "not in a picture 96 pixels wide" in said(capsys, "search", first, "--box", 0, 0, 300, 20)
    assert "There is no picture" in said(capsys, "search", folder / "lost.png")
    assert "--top is 0" in said(capsys, "search", first, "--top", 0)
    assert "expansion is -1" in said(capsys, "search", first, "--expand", -1)
    empty = {"bbx": [8, 8, 55, 55], "easy": [], "hard": [], "junk": []}
    for gnd, names, told in (
        (empty, ["p01"], "No query has a positive"),
        (empty | {"easy": [0]}, ["lost"], "1 pictures of the ground truth, first lost, are not in"),
    ):
        truth.write_bytes(pickle.dumps({"imlist": names, "qimlist": ["p00"], "gnd": [gnd]}))
        assert told in said(capsys, "evaluate", folder, "--truth", truth, "--size", 96, "--quiet")
    transformer = build_model("vit_tiny_patch16_224", 5, pretrained=False)
    with pytest.raises(CkfrError, match="vit_tiny_patch16_224 takes no picture of 96 × 64 pixels"):
        picture_features(transformer, torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
    other = small()
    other.mean = (0.0, 0.0, 0.0)
    monkeypatch.setattr(command, "build_model", lambda *_: other)
    assert "is of weights" in said(capsys, "search", first)


def test_help_does_not_need_torch():
    import subprocess
    import sys

    code = (
        "import sys; from ckfr_helpers.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], capture_output=True
    )
    assert done.returncode == 0
    assert b"retrieve" in done.stdout
