"""Finding the runs of a setting in `look_study`, and choosing by validation scores alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# The one number that alpha is chosen by: it counts how often a model is wrong and how badly.
CHOSEN_BY = "hdist@1"

Record = dict[str, Any]


def matching(records: Sequence[Record], condition: str, **settings: float) -> list[Record]:
    """The runs under one condition whose settings have these values, in the order of their seeds."""
    found = [
        record
        for record in records
        if record["condition"] == condition
        and all(record["settings"][name] == value for name, value in settings.items())
    ]
    return sorted(found, key=lambda record: record["settings"]["seed"])


def of_seeds(
    records: Sequence[Record], condition: str, seeds: Sequence[int], **settings: float
) -> list[Record]:
    """One run for each seed, in that order.

    Raises:
        KeyError: for a seed that has none.
    """
    found = {record["settings"]["seed"]: record for record in matching(records, condition, **settings)}
    return [found[seed] for seed in seeds]


def mean_val(records: Sequence[Record], condition: str, score: str, **settings: float) -> float:
    """Mean of a validation score over the runs that match; NaN where none does."""
    values = [record["val"][score] for record in matching(records, condition, **settings)]
    return float(np.mean(values)) if values else float("nan")


def tried(
    records: Sequence[Record], conditions: Sequence[str], score: str, name: str, values: Sequence[float]
) -> dict[str, dict[str, float]]:
    """For the result file: mean validation score for each condition and each value of one setting."""
    return {
        condition: {f"{value:g}": mean_val(records, condition, score, **{name: value}) for value in values}
        for condition in conditions
    }
