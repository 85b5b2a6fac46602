"""What tables and figures call scores, losses and data sets, so that one thing has one name everywhere."""

from collections.abc import Mapping
from typing import Any

from ckfr_helpers.training.study.config import SCORES

NAMES = {
    "top1": "top-1 accuracy",
    "mistake_severity": "mistake severity",
    "hdist@1": "hierarchical distance@1",
    "hdist@5": "hierarchical distance@5",
    "correlation": "latent–tree correlation",
}
#: The same under the column names of the committed study tables.
STUDY_NAMES = {"alignment_pearson" if key == "correlation" else key: name for key, name in NAMES.items()}
METHOD_NAMES = {
    "ckfr": "CKFR",
    "soft-labels": "soft labels",
    "hxe": "HXE",
    "proxy-anchor": "Proxy-Anchor",
}
HIGHER_IS_BETTER = (*(name for name, more in SCORES.items() if more), "alignment_pearson")


def method_title(method: str, chosen: Mapping[str, Any] | None = None) -> str:
    """A loss of a study, with the parameters that validation chose for it where they are given."""
    own = [f"{k} {v:g}" for k, v in (chosen or {}).items() if k in ("alpha", "ell", "beta", "weight")]
    name = METHOD_NAMES.get(method, method)
    return f"{name} ({', '.join(own)})" if own else name


def dataset_title(summary: Mapping[str, Any], label: str) -> str:
    """A data set of a study: its label, with its name before it where the label alone does not say it.

    Args:
        summary: as `training.study.run_study` gives it.
        label: a key of ``summary["results"]``.
    """
    name = next(data["name"] for data in summary["study"]["datasets"] if data["label"] == label)
    said = _letters(name) in _letters(label)
    return label if said else f"{name}, {label}"


def says_nothing(method: str, score: str) -> bool:
    """CRM decides otherwise with the same network, so its scores of latents only repeat the baseline's."""
    return method.endswith("CRM") and score.startswith("alignment")


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
