"""Everything that decides a run's result, in one frozen, comparable record."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ckfr_helpers.datasets.base import SPLITS
from ckfr_helpers.losses.rivals import check_method
from ckfr_helpers.losses.triplet import check_alpha_and_ell
from ckfr_helpers.runtime import CkfrError

# What may change between stopping and resuming: none of these alters an epoch that is already done.
RESUMABLE = ("epochs", "workers", "accelerator", "root", "grad_checkpointing", "save_every")

# Weights stay in float32 in each of them.
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one run; the defaults are the original demo's where it has them.

    Attributes:
        data: name of the image source, as in ``ckfr fetch NAME``.
        root: folder of the data; None for the usual place.
        data_options: further options of the source, e.g. ``{"background_bias": 0.9}``.
        train_options: such options of the training split alone, e.g. ``{"seed": 1}`` for other scenes.
        per_class: for each split, how many pictures of every class to take, ``{"train": 100}``; a split that
            is missing has all. The seed draws the training pictures; the others are the same for every seed.
        model: backbone; None for the default of the device.
        pretrained: start from ImageNet weights.
        weights: local state dict in place of a download.
        freeze: number of leading stages held still.
        method: what is minimised: "ckfr", or one of `baselines.METHODS` to compare it with.
        method_options: that method's parameters, e.g. ``{"beta": 10}``; ckfr's own stand below instead.
        alpha: weight of the aligned triplet loss (demo: 20); 0 is the cross-entropy baseline.
        ell: exponent of the latent distance (demo: 1.2).
        measure: knowledge distance: "path", "lca_height" or "wu_palmer".
        distances: file with class distances (.npz of a `Hierarchy`, or the demo's ``pseudo_distances.npy``)
            to use in place of ``measure``.
        knowledge_scale: factor on the knowledge distances (demo: 0.1).
        epochs: passes over the training split (demo: 100).
        lr: Adam's learning rate (demo: 1e-5).
        weight_decay: Adam's L2 penalty (demo: 0).
        lr_step: epochs between learning-rate drops (demo: 30).
        lr_gamma: factor of each drop (demo: 0.1).
        batch_size: images a step, over all processes together (demo: 32).
        transform: pixel pipeline, "original" or "light".
        size: side of the input images in pixels.
        cache: read pictures decoded and stretched to `transforms.stored_side` from a memory-mapped file,
            built once; evaluation sees the same pixels, random crops choose from the stretched picture.
        normalise: subtract the weights' mean and divide by their deviation (the demo does not).
        seed: seeds initialisation, order, augmentation and dropout.
        precision: Lightning Fabric's name: "32-true", "16-mixed" or "bf16-mixed".
        channels_last: keep pictures and weights as (B, H, W, C) in memory; faster on recent GPUs.
        compile: fuse the network with ``torch.compile``; the first steps wait for the compiler.
        accumulate: parts that each process cuts its batch into, for memory; loss and gradient stay the whole
            batch's (`training.step`), batch norm sees a part, and a step costs one forward pass more.
        grad_checkpointing: compute activations again on the way back, for memory; changes no result.
        accelerator: "auto", "cpu", "cuda" or "mps".
        devices: processes on this machine; torchrun overrides it.
        workers: loader processes for each training process; None for one per core, at most eight.
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
    workers: int | None = None
    save_every: int = 0

    def __post_init__(self) -> None:
        for name, low in (
            ("epochs", 1),
            ("batch_size", 1),
            ("lr_step", 1),
            ("size", 8),
            ("devices", 1),
            ("seed", 0),
            ("accumulate", 1),
            ("save_every", 0),
        ):
            if getattr(self, name) < low:
                raise CkfrError(f"{name} is {getattr(self, name)}; expected at least {low}.")
        check_method(self.method, {} if self.method == "ckfr" else self.method_options)
        for split, count in self.per_class.items():
            if split not in SPLITS or count < 1:
                raise CkfrError(
                    f"per_class has {split}: {count}; expected {', '.join(SPLITS)} with at least 1 each."
                )
        if self.precision not in PRECISIONS:
            raise CkfrError(f"precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}.")
        check_alpha_and_ell(self.alpha, self.ell)
        for name in ("lr", "knowledge_scale", "lr_gamma"):
            if not 0 < getattr(self, name) < float("inf"):
                raise CkfrError(f"{name} is {getattr(self, name)}; expected a positive number.")
        for name in ("weight_decay", "freeze"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise CkfrError(f"{name} is {getattr(self, name)}; expected zero or a positive number.")

    def to_json(self) -> str:
        """The settings as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str | Path = "the configuration") -> Self:
        """Settings from a mapping, e.g. read from JSON.

        Raises:
            CkfrError: if a name is none of the attributes.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise CkfrError(
                f"{source} has the unknown setting {unknown[0]!r}; expected {', '.join(sorted(known))}."
            )
        return cls(**values)

    def run_name(self) -> str:
        """A folder name that tells runs apart at a glance; the full settings are stored inside."""
        bias = self.data_options.get("background_bias")
        parts = [self.data, *([f"bias{bias}"] if bias is not None else []), self.model or "model"]
        method = f"alpha{self.alpha:g}_ell{self.ell:g}_{self.measure}" if self.alpha else "baseline"
        if self.method != "ckfr":
            method = "_".join(
                [self.method, *(f"{name}{value}" for name, value in self.method_options.items())]
            )
        return "_".join([*parts, method, f"seed{self.seed}"])

    def difference(self, other: "TrainConfig") -> str | None:
        """The first setting in which two runs differ so that one cannot continue the other, in words."""
        for f in dataclasses.fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if f.name not in RESUMABLE and mine != theirs:
                return f"{f.name} is {mine!r} here and {theirs!r} there"
        return None
