"""A task of another kind through the same loop: several labels a picture, an error that should fall."""

import pytest
import torch
from flat_colours import FlatColours
from torch import nn

from ckfr_helpers.datasets.loading import TransformedView, make_loader
from ckfr_helpers.datasets.transforms import make_transform
from ckfr_helpers.training import Task, TrainConfig, fit

SIDE = 8


class SeveralLabels(FlatColours):
    """Each picture's colour and its group, as two of six labels."""

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        labels = torch.zeros(6)
        labels[[target["label"], 4 + target["label"] // 2]] = 1
        return image, target | {"labels": labels}


class MultiLabel(Task):
    chosen_by = "wrong"
    more_is_better = False
    stop_at = None  # the losses are asked for this often before the process dies

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(6))  # of the labels, learnt: a task may have such

    def outputs(self, model, inputs):
        return {"logits": model(inputs)}

    def losses(self, outputs, targets):
        if self.stop_at is not None:
            self.stop_at -= 1
            if self.stop_at < 0:
                raise EOFError
        shifted = outputs["logits"] + self.weights
        return {"logistic": nn.functional.binary_cross_entropy_with_logits(shifted, targets["labels"])}

    def validate(self, model, loader, fabric=None):
        model.eval()
        with torch.no_grad():
            found = [
                ((model(x) + self.weights > 0) != t["labels"].bool()).float().mean() for x, t, _ in loader
            ]
        return {"wrong": float(torch.stack(found).mean())}


def trained(out, task, accumulate):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(3 * SIDE * SIDE, 6))
    config = TrainConfig(
        epochs=4, lr=0.02, batch_size=8, accumulate=accumulate, accelerator="cpu", save_every=1
    )
    loaders = []
    for split in ("train", "val"):
        source = SeveralLabels(split, size=SIDE)
        transform = make_transform("light", train=split == "train", size=SIDE)
        view = TransformedView(source, transform, keys=("labels",))
        loaders.append(make_loader(view, 8, train=split == "train"))
    return model, fit(model, task, *loaders, config, out=out, progress=False)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_multi_label_task_trains_and_goes_on_without_a_change_to_the_loop(tmp_path, accumulate):
    task = MultiLabel()
    model, whole = trained(tmp_path / "whole", task, accumulate)
    assert {"train_logistic", "val_wrong"} < set(whole.history[0])
    assert whole.history[-1]["train_logistic"] < 0.8 * whole.history[0]["train_logistic"]
    wrong = [row["val_wrong"] for row in whole.history]
    assert whole.best_epoch == wrong.index(min(wrong))
    assert min(wrong) < 0.2
    assert task.weights.abs().sum() > 0

    doomed = MultiLabel()
    doomed.stop_at = 6  # in the second epoch of four steps each
    with pytest.raises(EOFError):
        trained(tmp_path / "cut", doomed, accumulate)
    resumed = MultiLabel()
    again, rest = trained(tmp_path / "cut", resumed, accumulate)
    assert [row["val_wrong"] for row in rest.history] == wrong
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert torch.equal(resumed.weights, task.weights)
