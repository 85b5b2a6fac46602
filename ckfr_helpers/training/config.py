"""Everything that decides a run's result, in one frozen, comparable record."""

import dataclasses
import math
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, get_args, get_origin

from ckfr_helpers.datasets.base import SPLITS
from ckfr_helpers.hierarchy.tree import MEASURES
from ckfr_helpers.losses.rivals import check_method
from ckfr_helpers.losses.triplet import check_alpha_and_ell
from ckfr_helpers.runtime import CkfrError

# What may change between stopping and resuming: none of these alters an epoch that is already done.
RESUMABLE = ("epochs", "workers", "accelerator", "root", "grad_checkpointing", "save_every")

# Seeds go to NumPy's old generator, which takes 32 bits; a side beyond 4096 is a slip, not a picture.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("epochs", "batch_size", "lr_step", "devices", "accumulate"), (1, 1_000_000)),
    **dict.fromkeys(("workers", "freeze", "save_every"), (0, 1_000_000)),
    "size": (8, 4096),
    "seed": (0, 2**32 - 1),
    "weight_decay": (0, sys.float_info.max),
    **dict.fromkeys(("lr", "knowledge_scale", "lr_gamma"), (sys.float_info.min, sys.float_info.max)),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "measure": MEASURES,
    "transform": ("original", "light"),
    "precision": ("32-true", "16-mixed", "bf16-mixed"),  # weights stay in float32 in each of them
    "accelerator": ("auto", "cpu", "cuda", "gpu", "mps"),
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run; the defaults are the original demo's where it has them.

    Attributes:
        data: image source: mini-imagenet, photos, tiny-imagenet, cifar10, folder, …
        root: folder of the data; None for $CKFR_DATA, else data/.
        data_options: further options of the source, e.g. ``{"background_bias": 0.9}``.
        train_options: such options of the training split alone, e.g. ``{"seed": 1}`` for other scenes.
        per_class: for each split, how many pictures of every class to take, ``{"train": 100}``; a split that
            is missing has all. The seed draws the training pictures; the others are the same for every seed.
        model: backbone; None for wide_resnet50_2 on a GPU, efficientnet_lite0 on a CPU.
        pretrained: start from ImageNet weights.
        weights: local state dict in place of a download.
        freeze: number of leading stages held still.
        method: what is minimised: "ckfr", or one of `losses.METHODS` to compare it with.
        method_options: that method's parameters, e.g. ``{"beta": 10}``; ckfr's own stand below instead.
        alpha: weight of the aligned triplet loss; 0 is the cross-entropy baseline.
        ell: exponent of the latent distance.
        measure: knowledge distance: "path", "lca_height" or "wu_palmer".
        distances: file with class distances (.npz of a `Hierarchy`, or the demo's ``pseudo_distances.npy``)
            to use in place of ``measure``.
        knowledge_scale: factor on the knowledge distances.
        epochs: passes over the training split.
        lr: Adam's learning rate.
        weight_decay: Adam's L2 penalty.
        lr_step: epochs between learning-rate drops.
        lr_gamma: factor of each drop.
        batch_size: images a step, over all processes together.
        transform: pixel pipeline, "original" or "light".
        size: side of the input images in pixels; the command takes 160 for photos.
        cache: read pictures, decoded and stretched, from a memory-mapped file that is built once; evaluation
            sees the same pixels, random crops choose from the stretched picture.
        normalise: subtract the weights' mean and divide by their deviation (the demo does not).
        seed: seeds initialisation, order, augmentation and dropout.
        precision: Lightning Fabric's name: "32-true", "16-mixed" or "bf16-mixed".
        channels_last: keep pictures and weights as (B, H, W, C) in memory; faster on recent GPUs.
        compile: fuse the network with ``torch.compile``; the first steps wait for the compiler.
        accumulate: parts that each process cuts its batch into, for memory; loss and gradient stay the whole
            batch's (`training.step`), batch norm sees a part, and a step costs one forward pass more.
        grad_checkpointing: compute activations again on the way back, for memory; changes no result.
        accelerator: "auto", "cpu", "cuda" or "mps".
        devices: processes on this machine; torchrun overrides it. Several give the step of one with the same
            batch, but for batch norm (each process normalises by its own share) and dropout.
        sync_batch_norm: normalise by the batch of all processes; between GPUs only.
        workers: loader processes for each training process; None for one per core, at most 8.
        save_every: steps between checkpoints within an epoch; 0 for one every ten minutes.
    """

    data: str = "mini-imagenet"
    root: str | None = None
    data_options: dict[str, Any] = field(default_factory=dict)
    train_options: dict[str, Any] = field(default_factory=dict)
    per_class: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    pretrained: bool = True
    weights: str | None = None
    freeze: int = 0
    method: str = "ckfr"
    method_options: dict[str, Any] = field(default_factory=dict)
    alpha: float = 20.0
    ell: float = 1.2
    measure: str = "path"
    distances: str | None = None
    knowledge_scale: float = 0.1
    epochs: int = 100
    lr: float = 1e-5
    weight_decay: float = 0.0
    lr_step: int = 30
    lr_gamma: float = 0.1
    batch_size: int = 32
    transform: str = "original"
    size: int = 224
    cache: bool = False
    normalise: bool = False
    seed: int = 0
    precision: str = "32-true"
    channels_last: bool = False
    compile: bool = False
    accumulate: int = 1
    grad_checkpointing: bool = False
    accelerator: str = "auto"
    devices: int = 1
    sync_batch_norm: bool = False
    workers: int | None = None
    save_every: int = 0

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _typed(f.name, getattr(self, f.name), f.type))
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise CkfrError(f"{name} is {value}; expected {low} to {high}.")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise CkfrError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}.")
        check_alpha_and_ell(self.alpha, self.ell)
        if self.method != "ckfr":
            check_method(self.method, self.method_options)
        elif self.method_options:
            raise CkfrError(f"method_options is {self.method_options}; expected none for ckfr.")
        elif self.alpha > 0 and self.batch_size < 3:
            raise CkfrError(
                f"A batch of {self.batch_size} holds no triplet to align; expected a batch_size of at least "
                "3, or alpha 0 for cross-entropy alone."
            )
        for split, count in self.per_class.items():
            if split not in SPLITS or not isinstance(count, int) or count < 1:
                known = ", ".join(SPLITS)
                raise CkfrError(f"per_class has {split}: {count}; expected {known} with at least 1 each.")

    def baseline(self) -> Self:
        """The same run with cross-entropy alone."""
        return dataclasses.replace(self, alpha=0.0, method="ckfr", method_options={})

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str | Path = "the configuration") -> Self:
        """Settings from a mapping, e.g. read from JSON; a `CkfrError` for an unknown name or wrong value."""
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise CkfrError(f"{source} has the unknown setting {unknown[0]!r}; expected {', '.join(known)}.")
        return cls(**values)

    def run_name(self) -> str:
        """A folder name that tells runs apart at a glance; the full settings are stored inside."""
        bias = self.data_options.get("background_bias")
        parts = [self.data, *([f"bias{bias}"] if bias is not None else []), self.model or "model"]
        if self.method == "ckfr":
            parts += [f"alpha{self.alpha:g}_ell{self.ell:g}_{self.measure}" if self.alpha else "baseline"]
        else:
            parts += [self.method, *(f"{name}{value}" for name, value in self.method_options.items())]
        return "_".join([*parts, f"lr{self.lr:g}", f"seed{self.seed}"])

    def difference(self, other: "TrainConfig") -> str | None:
        """The first setting in which two runs differ so that one cannot continue the other, in words."""
        for f in dataclasses.fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if f.name not in RESUMABLE and mine != theirs:
                return f"{f.name} is {mine!r} here and {theirs!r} there"
        return None


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value if it is of its field's type (whole numbers pass for decimal ones, never the other way)."""
    value = str(value) if isinstance(value, Path) else getattr(value, "item", lambda: value)()  # of NumPy
    kinds = get_args(kind) if isinstance(kind, types.UnionType) else (get_origin(kind) or kind,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        value = float(value)
    right = type(value) in kinds if isinstance(value, bool) else isinstance(value, kinds)
    if not right or (isinstance(value, float) and not math.isfinite(value)):
        wanted = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text",
                  dict: "a mapping", types.NoneType: "None"}  # fmt: skip
        raise CkfrError(f"{name} is {value!r}; expected {' or '.join(wanted[k] for k in kinds)}.")
    return value
