"""Settings: the demo's defaults, and every wrong value refused at once in one sentence."""

import numpy as np
import pytest

from ckfr_helpers.runtime import CkfrError
from ckfr_helpers.training import TrainConfig


def test_defaults_are_the_demos():
    config = TrainConfig()
    assert (config.alpha, config.ell, config.lr, config.batch_size, config.epochs) == (20, 1.2, 1e-5, 32, 100)
    assert (config.knowledge_scale, config.measure, config.lr_step, config.lr_gamma) == (0.1, "path", 30, 0.1)
    assert (config.transform, config.size, config.normalise, config.weight_decay) == (
        "original",
        224,
        False,
        0,
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("measure", "feet"),
        ("epochs", 2.5),
        ("epochs", True),
        ("lr", float("nan")),
        ("lr", "1e-3"),
        ("lr", 0),
        ("seed", 99999999999999999999),
        ("size", 10**6),
        ("workers", -1),
        ("cache", 1),
        ("alpha", float("inf")),
        ("accelerator", "tpu"),
        ("transform", "blurred"),
        ("data", None),
        ("per_class", {"train": 2.5}),
        ("method", "hx"),
        ("method_options", {"beta": 1}),
        ("batch_size", 2),  # of two pictures there is no triplet
    ],
)
def test_a_wrong_value_is_refused_at_once(setting, value):
    with pytest.raises(CkfrError) as caught:
        TrainConfig(**{setting: value})
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


def test_numbers_of_numpy_and_whole_numbers_pass():
    config = TrainConfig(lr=1, seed=np.int64(3), alpha=np.float32(2))
    assert (config.lr, config.seed, config.alpha) == (1.0, 3, 2.0)
    assert TrainConfig(alpha=0, batch_size=2).batch_size == 2


def test_a_folders_name_tells_learning_rates_apart():
    assert TrainConfig(lr=1e-3).run_name() != TrainConfig(lr=1e-4).run_name()
