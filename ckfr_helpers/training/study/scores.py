"""Further scores that a study may ask for, found by name: this room does not know the rooms above it.

A scorer is called ``scorer(model, loaders, sources)`` with the trained network (behind a frozen trunk, its
tail), loaders of "val" and "test" in order, for scenes also of "usual" and "foreign" where the study asks for
"look", and the sources of their pictures. It returns scores of the test split, and for some of them the
value of each test picture.
"""

from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any

from ckfr_helpers.runtime import CkfrError

SCORERS = {"look": "ckfr_helpers.attribution.look:study_scores"}
# Method and score that stand in the table for what "look" says without any network.
FREE = {
    "uniform_energy": ("uniform map", "energy"),
    "centre_energy": ("centre map", "energy"),
    "random_point": ("random point", "pointing"),
    "centre_point": ("centre map", "pointing"),
    "centre_max_box_acc_v2": ("centre map", "max_box_acc_v2"),
    "centre_gt_known": ("centre map", "gt_known"),
    "whole_image_gt_known": ("whole picture", "gt_known"),
}


def resolve(name: str) -> Callable[..., Any]:
    """A scorer by its name, or by ``package.module:function``."""
    try:
        return resolve_name(SCORERS.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        raise CkfrError(
            f"There is no score {name!r} ({error}); expected {', '.join(SCORERS)} or package.module:function."
        ) from error


def free(names: Sequence[str], test: Any) -> list[tuple[str, str, float]]:
    """Method, score and value of what is had without any network on a test split."""
    if "look" not in names:
        return []
    found = resolve("ckfr_helpers.attribution.look:free_scores")(test)
    return [(*FREE[name], value) for name, value in found.items()]
