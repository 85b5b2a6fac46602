"""Pre-training aligns, the joined classifier learns from both, and every step is that of the whole batch."""

import copy

import pytest
import torch
from flat_colours import TREE
from lightning_fabric import Fabric
from torch import nn

from ckfr_helpers.contrastive import soft_target_loss
from ckfr_helpers.contrastive.metadata import MetadataEncoder, encode_location
from ckfr_helpers.contrastive.tasks import LOSSES, AlignTask, Fusion, Towers
from ckfr_helpers.datasets.field_notes import FieldNotes
from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.losses import make_loss
from ckfr_helpers.models import CachedFeatures
from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training import ClassificationTask, TrainConfig, fit
from ckfr_helpers.training.step import TaskNetwork, gradients

WORLD = FieldNotes(TREE, kappa=60.0, season_kappa=0.0, homes=1)
WORDS = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def drawn(rows=64, seed=0):
    """The picture tells warm from cold, the note which of all four; one note in ten is lost."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 4
    image = torch.randn(rows, 5, generator=draw)
    image[:, 0] += torch.where(labels < 2, 3.0, -3.0)
    notes = WORLD.draw(labels.numpy(), missing=0.1, seed=seed)
    inputs = {"image": image, "text": WORDS[labels], "metadata": encode_location(*notes).float()}
    return CachedFeatures(inputs, labels, torch.arange(rows))


def towers(dropout=0.1):
    torch.manual_seed(0)
    encoders = {"image": nn.Identity(), "text": nn.Identity(), "metadata": MetadataEncoder(8, 1, dropout)}
    return Towers(encoders, {"image": 5, "text": 6, "metadata": 8}, width=8, dropout=dropout)


def run(model, task, **changes):
    options = {"epochs": 8, "lr": 0.01, "batch_size": 16, "alpha": 0.0, "accelerator": "cpu", **changes}
    loaders = CachedLoader(drawn(), 16, True), CachedLoader(drawn(seed=5), 16, False)
    return fit(model, task, *loaders, TrainConfig(**options), progress=False)


@pytest.mark.parametrize("loss", LOSSES)
def test_pretraining_aligns_and_is_scored(loss):
    model = towers()
    history = run(model, AlignTask(loss), epochs=20).history
    first, last = history[0], history[-1]
    pairs = ("text_image", "metadata_image", "text_metadata")
    assert sum(last[f"train_{pair}"] for pair in pairs) < sum(first[f"train_{pair}"] for pair in pairs)
    assert last["val_alignment"] == pytest.approx(sum(last[f"val_{pair}"] for pair in pairs))
    if loss == "supervised":
        assert last["val_alignment"] < first["val_alignment"]
        assert last["val_text_metadata_matched"] > 0.8


def test_the_losses_are_those_of_the_pairs():
    model, data = towers().eval(), drawn(12)
    batch = (data.features, {"label": data.labels}, data.indices)
    found = AlignTask("released", [("metadata", "image")], temperature=0.7).step(model, batch)
    seen = model(data.features)
    assert list(found) == ["metadata_image"]
    assert torch.allclose(found["metadata_image"], soft_target_loss(seen["metadata"], seen["image"], 0.7))


def test_a_batch_in_parts_gives_the_whole_batchs_gradients():
    data, fabric = drawn(12), Fabric(accelerator="cpu", devices=1)
    slopes = []
    for parts in (1, 3):
        model, task = towers(dropout=0.0), AlignTask()
        network = fabric.setup(TaskNetwork(model, task))
        gradients(fabric, network, task, data.features, {"label": data.labels}, parts=parts)
        slopes.append([weight.grad for weight in model.parameters()])
    for whole, in_parts in zip(*slopes, strict=True):
        torch.testing.assert_close(whole, in_parts)


def test_joined_towers_learn_what_the_picture_alone_cannot_tell():
    task = ClassificationTask(make_loss("cross-entropy", TREE), TREE)
    right = {}
    for names in (("image",), ("image", "metadata")):
        result = run(Fusion(copy.deepcopy(towers()), 4, names, dropout=0.1), task, epochs=15)
        right[names] = result.history[-1]["val_top1"]
    assert right["image",] < 0.7
    assert right["image", "metadata"] > 0.85


def test_the_classifier_is_its_formula_and_never_reads_text():
    model, inputs = Fusion(towers(), 4).eval(), drawn(6).features
    seen = model.towers(inputs)
    latents = torch.cat([seen["image"], seen["metadata"]], 1)
    first, _, _, last = model.head
    expected = last(nn.functional.gelu(first(latents)))
    assert torch.equal(model(inputs), expected)
    assert torch.equal(model({name: inputs[name] for name in ("image", "metadata")}), expected)


def test_bad_options_are_one_sentence():
    with pytest.raises(CkfrError, match="no loss 'clip'; expected one of released, mended, supervised"):
        AlignTask("clip")
    with pytest.raises(CkfrError, match="no pair of encoders"):
        AlignTask(pairs=[])
    with pytest.raises(CkfrError, match=r"are \('sound',\); expected some of image, text, metadata"):
        Fusion(towers(), 4, ("sound",))
    with pytest.raises(CkfrError, match="for image and text; expected the same names"):
        Towers({"image": nn.Identity()}, {"text": 4})
    with pytest.raises(CkfrError, match="no input 'metadata'; expected it among image"):
        Fusion(towers(), 4)({"image": torch.zeros(2, 5)})
