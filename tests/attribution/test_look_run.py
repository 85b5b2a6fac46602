"""From a folder of pictures with boxes, through training, to what ``ckfr look`` prints."""

import json

import numpy as np
import pytest
from PIL import Image

from ckfr_helpers import __main__ as cli
from ckfr_helpers.training import TrainConfig, train


def test_from_a_folder_with_boxes_to_scores_on_the_command_line(tmp_path, capsys):
    generator = np.random.default_rng(0)
    lines = ["file,x0,y0,x1,y1"]
    for split, count in (("train", 8), ("val", 4), ("test", 4)):
        for name, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(90, 160, (32, 40, 3), dtype=np.uint8)
                x, y = generator.integers(0, 20, 2) % (20, 12)
                pixels[y : y + 18, x : x + 18] = colour
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.png")
                lines.append(f"{split}/{name}/{number}.png,{x},{y},{x + 17},{y + 17}")
    (tmp_path / "data" / "hierarchy.csv").write_text("parent,child\nthing,red\nthing,blue\n")
    (tmp_path / "data" / "boxes.csv").write_text("\n".join(lines) + "\n")
    config = TrainConfig(
        data="folder", root=str(tmp_path / "data"), model="resnet18", pretrained=False, size=64, epochs=1,
        transform="light", lr=1e-3, batch_size=8, workers=0, accelerator="cpu",
    )  # fmt: skip
    train(config, tmp_path / "run", progress=False)
    run, moved = str(tmp_path / "run"), tmp_path / "moved"
    (tmp_path / "data").rename(moved)  # the data that the run was trained on is no longer where it was

    def looked(*options):
        capsys.readouterr()
        assert cli.main(["look", run, "--root", str(moved), "--json", *options]) == 0
        return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # NaN is not JSON

    scores = looked()
    assert 0 < scores["energy"] < 1
    assert scores["pxap"] is None
    assert scores["box_acc_fixed"] <= scores["max_box_acc_v2"] <= 1
    assert looked("--data", "folder") == scores
    by_gradients = looked("--method", "hirescam")  # the same map for average pooling and a linear layer
    assert by_gradients["energy"] == pytest.approx(scores["energy"], abs=1e-4)
    lines = (moved / "boxes.csv").read_text().splitlines()
    (moved / "boxes.csv").write_text("\n".join(line for line in lines if "test/red/3" not in line))
    assert cli.main(["look", run, "--root", str(moved)]) == 2
    assert f"There is no box for {moved}/test/red/3.png" in capsys.readouterr().err
    for split in ("train", "val", "test"):
        (moved / split / "red").rename(moved / split / "pink")
    (moved / "hierarchy.csv").write_text("parent,child\nthing,pink\nthing,blue\n")
    (moved / "boxes.csv").unlink()
    assert cli.main(["look", run, "--data", "folder", "--root", str(moved)]) == 2
    assert "knows 2 classes (blue, red), folder has 2 classes (blue, pink)" in capsys.readouterr().err
