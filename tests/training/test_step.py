"""Speed flags: what each may change of a step's loss, gradients and statistics, and what it must not."""

import contextlib
import copy
import shutil

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from ckfr_helpers.datasets.loading import CachedLoader
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.losses import AlignedTripletLoss, Objective, make_loss
from ckfr_helpers.models import CachedFeatures, Classifier
from ckfr_helpers.runtime import CkfrError, mix_seed
from ckfr_helpers.training import ClassificationTask, TrainConfig, fit
from ckfr_helpers.training.step import TaskNetwork, checkpointed_blocks, grad_checkpointing, gradients

CLASSES = Hierarchy.from_nested({"thing": {"warm": ["red", "orange"], "cold": ["blue", "green"]}})
TREE = CLASSES.distances("path")
SEED = (3, 0, 5)


class Block(nn.Module):
    """Two layers with a way round, like a residual network's."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=not norm),
            nn.BatchNorm2d(width) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x):
        return torch.relu(x + self.inner(x))


def build(norm: bool = True, dropout: bool = True) -> Classifier:
    torch.manual_seed(0)
    norm_layer = nn.BatchNorm2d(8) if norm else nn.Identity()
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=not norm), norm_layer)
    stages = nn.Sequential(stem, nn.Sequential(Block(8, norm), Block(8, norm)), Block(8, norm))
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    model = Classifier(stages, neck, nn.Linear(8, 4), name="small", dropout=0.3)
    if not dropout:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    return model.train()


def batch(size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(size) % 4
    pictures = torch.rand(size, 3, 10, 10, generator=generator)
    pictures[range(size), labels % 3] += labels[:, None, None] // 3 + 0.5
    return pictures, labels


def ckfr(alpha=20.0) -> ClassificationTask:
    return ClassificationTask(make_loss("ckfr", CLASSES, alpha=alpha, ell=1.2), CLASSES)


def one_step(
    model, alpha=20.0, parts=1, precision="32-true", compiled=False, data=None, seed=SEED, task=None,
    checkpointed=False, **flags,
):  # fmt: skip
    """Losses, gradients and buffers of one step under the flags given; the model given is left alone."""
    model = copy.deepcopy(model)
    engine = {"precision": precision}
    if precision == "16-mixed":  # by name Fabric takes bf16 on a CPU; by hand it takes what is asked
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        engine = {"plugins": MixedPrecision(precision, "cpu", scaler)}
    fabric = Fabric(accelerator="cpu", devices=1, **engine)
    task = task or ckfr(alpha)
    network = TaskNetwork(model, task, **flags)
    pictures, labels = data or batch()
    with grad_checkpointing(model) if checkpointed else contextlib.nullcontext():
        network = fabric.setup(torch.compile(network) if compiled else network)
        losses = gradients(fabric, network, task, pictures, {"label": labels}, parts=parts, seed=seed)
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    scale = scaler.get_scale() if scaler else 1.0
    found = {name: p.grad / scale for name, p in model.named_parameters() if p.grad is not None}
    return losses, found, {name: b.clone() for name, b in model.named_buffers()}


def assert_same(ours, theirs, tolerance=2e-5):
    """Every tensor to ``tolerance`` of its largest entry (float32 sums in another order)."""
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            a, b = torch.as_tensor(mine[name]).double(), torch.as_tensor(other[name]).double()
            assert (a - b).abs().max() <= tolerance * max(b.abs().max().item(), 1e-3), name


@pytest.mark.parametrize("alpha", [0.0, 20.0])
@pytest.mark.parametrize("parts", [2, 5])
def test_an_accumulated_step_is_the_whole_batchs(parts, alpha):
    """Without batch norm and dropout nothing may change, however uneven the parts."""
    model = build(norm=False, dropout=False)
    assert_same(one_step(model, alpha, parts), one_step(model, alpha))


def test_triplets_across_parts_are_what_the_second_pass_buys():
    """The usual accumulation, each part's own triplets, is another loss: the test above can fail."""
    model = build(norm=False, dropout=False)
    pictures, labels = batch()
    whole = one_step(model)[0]["metric"]
    halves = np.mean(
        [
            one_step(model, data=(pictures[rows], labels[rows]))[0]["metric"]
            for rows in (slice(0, 6), slice(6, 12))
        ]
    )
    assert abs(halves - whole) > 0.01 * whole


def test_accumulation_with_dropout_and_batch_norm_against_one_graph_of_all_parts():
    """Both passes draw the same dropout, and running statistics count each part once."""
    model = build()
    pictures, labels = batch()
    reference = copy.deepcopy(model)
    logits, latents = [], []
    for number, rows in enumerate(torch.arange(12).tensor_split(3)):
        torch.manual_seed(mix_seed(*SEED, *([number] if number else [])))
        latents.append(reference.embed(pictures[rows]))
        logits.append(reference.classify(latents[-1]))
    entropy = nn.functional.cross_entropy(torch.cat(logits), labels)
    metric = AlignedTripletLoss(20, 1.2, 0.1 * TREE)(torch.cat(latents), labels)
    (entropy + metric).backward()
    losses, found, buffers = one_step(model, parts=3)
    assert losses["cross_entropy"] == pytest.approx(entropy.item(), rel=1e-5)
    assert losses["metric"] == pytest.approx(metric.item(), rel=1e-5)
    assert_same(
        (found, buffers),
        ({n: p.grad for n, p in reference.named_parameters()}, dict(reference.named_buffers())),
    )


@pytest.mark.parametrize("frozen", [0, 1])
def test_grad_checkpointing_changes_nothing_to_the_bit(frozen):
    """Dropout is drawn again as it was, and batch-norm statistics move once."""
    model = build().freeze(frozen)
    plain, checkpointed = one_step(model), one_step(model, checkpointed=True)
    assert plain[0] == checkpointed[0]
    for ours, theirs in zip(checkpointed[1:], plain[1:], strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_grad_checkpointing_keeps_less_for_the_way_back():
    kept = {}
    for flag in (False, True):
        model, bytes_kept = build(), []
        weights = {p.data_ptr() for p in model.parameters()}

        def pack(tensor, bytes_kept=bytes_kept, weights=weights):
            if tensor.data_ptr() not in weights:
                bytes_kept.append(tensor.numel() * tensor.element_size())
            return tensor

        with (
            grad_checkpointing(model) if flag else contextlib.nullcontext(),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            model(batch()[0])
        kept[flag] = sum(bytes_kept)
    assert kept[True] < kept[False] / 3


def test_blocks_are_the_networks_own():
    from ckfr_helpers.models import build_model

    resnet = build_model("resnet18", 4, pretrained=False)
    names = [type(block).__name__ for block in checkpointed_blocks(resnet.stages)]
    assert names == ["Sequential"] + 8 * ["BasicBlock"]
    inputs = torch.rand(1, 3, 32, 32)
    state = inputs
    for block in checkpointed_blocks(resnet.eval().stages):
        state = block(state)
    torch.testing.assert_close(resnet.neck(state), resnet.embed(inputs))


def test_channels_last_gives_the_same_numbers():
    model = build(dropout=False)  # dropout draws in the order of memory, which is another
    assert_same(one_step(model, channels_last=True), one_step(model))
    network = TaskNetwork(build(), ckfr(), channels_last=True)
    seen = []
    network.model.stages[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(batch()[0])
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert network.model.stages[0][0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("parts", [1, 3])
def test_half_precision_is_near(precision, parts):
    """Within a part, half precision keeps about three digits; the gradient's direction stays."""
    model = build(norm=False, dropout=False)
    plain, half = one_step(model), one_step(model, parts=parts, precision=precision)
    for term in ("cross_entropy", "metric"):
        assert half[0][term] == pytest.approx(plain[0][term], rel=0.03)
    ours, theirs = (torch.cat([g.flatten() for g in step[1].values()]) for step in (half, plain))
    assert ours.dtype == torch.float32  # weights stay wide
    assert nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99
    assert ours.norm() == pytest.approx(theirs.norm().item(), rel=0.05)


class Small(nn.Module):
    """As little as there is to compile."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(300, 8), nn.Linear(8, 4)

    def embed(self, x):
        return torch.tanh(self.body(x.flatten(1)))

    def classify(self, z):
        return self.head(z)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_step_gives_the_same_numbers():
    from torch._dynamo.utils import counters

    counters.clear()
    plain, compiled = one_step(Small()), one_step(Small(), compiled=True)
    assert counters["frames"]["ok"] > 0  # it was compiled, not passed through
    assert_same(compiled, plain)


@pytest.mark.slow
def test_a_missing_compiler_is_said_in_one_sentence(tmp_path, monkeypatch):
    import torch._inductor.config as inductor

    class NeverCompiled(Small):
        """Code of its own: what was compiled before, in this process or another, needs no compiler again."""

        def embed(self, x):
            return torch.sin(self.body(x.flatten(1)) * 1.375) + 0.0625

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    changes = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}
    with inductor.patch(changes), pytest.raises(CkfrError, match=r"torch\.compile failed here") as caught:
        run(model=NeverCompiled(), compile=True)
    assert "\n" not in str(caught.value)


# -- whole runs ----------------------------------------------------------------------------------------------


def run(out=None, epochs=3, task=None, model=None, on_step=None, **flags):
    data = CachedFeatures(*batch(48), torch.arange(48))
    config = TrainConfig(epochs=epochs, lr=1e-2, batch_size=12, accelerator="cpu", **flags)
    model = model or build()
    loaders = CachedLoader(data, 12, True), CachedLoader(data, 12, False)
    return model, fit(model, task or ckfr(5), *loaders, config, out=out, progress=False)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {
            "accumulate": 2,
            "grad_checkpointing": True,
            "channels_last": True,
            "precision": "bf16-mixed",
        },
    ],
    ids=lambda flags: "+".join(flags),
)
def test_every_flag_trains_and_goes_on_to_the_bit(flags, tmp_path):
    """From a checkpoint in the middle of an epoch, as a killed process leaves it."""
    model, result = run(tmp_path / "whole", **flags)
    entropy = [row["train_cross_entropy"] for row in result.history]
    assert entropy[-1] < entropy[0]

    class Killed(Exception):
        pass

    class Deadly(ClassificationTask):
        """Its seventh step (the third of the second epoch) never comes: the second was saved."""

        steps = 0

        def losses(self, outputs, targets):
            self.steps += 1
            if self.steps == 7:
                raise Killed
            return super().losses(outputs, targets)

    with pytest.raises(Killed):
        run(tmp_path / "cut", task=Deadly(ckfr(5).objective, CLASSES), save_every=2, **flags)
    again, resumed = run(tmp_path / "cut", **flags)
    assert len(resumed.history) == 3
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_grad_checkpointing_may_be_switched_on_half_way(tmp_path):
    model, _ = run(tmp_path / "whole")
    run(tmp_path / "cut", epochs=1)
    again, _ = run(tmp_path / "cut", grad_checkpointing=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(CkfrError, match=r"accumulate is 2 here and 1 there"):
        run(tmp_path / "cut", epochs=4, accumulate=2)


class WithProxies(nn.Module):
    """A metric term with weights of its own."""

    alpha = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.proxies = nn.Parameter(torch.zeros(4, 8))

    def forward(self, latents, labels):
        return (latents - self.proxies[labels]).square().sum(1).mean()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_tasks_own_weights_are_trained_and_kept(tmp_path, accumulate):
    def task() -> ClassificationTask:
        return ClassificationTask(Objective(nn.CrossEntropyLoss(label_smoothing=0.1), WithProxies()), CLASSES)

    first, resumed = task(), task()
    _, result = run(tmp_path, task=first, accumulate=accumulate)
    proxies = first.objective.metric.proxies
    assert proxies.abs().sum() > 0
    assert result.history[-1]["train_metric"] < result.history[0]["train_metric"]
    run(tmp_path, task=resumed, accumulate=accumulate)
    assert torch.equal(resumed.objective.metric.proxies, proxies)
