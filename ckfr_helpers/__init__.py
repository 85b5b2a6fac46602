"""Where does a network look, and does it help to know how classes hang together?

The names below are the ones people import; each room has more. Nothing heavy is imported until it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_PLACES = {
    "Hierarchy": "hierarchy",
    "AlignedTripletLoss": "losses",
    "hierarchical_metrics": "metrics",
    "minimum_risk_labels": "metrics",
    "max_box_acc": "localization",
    "class_activation_maps": "attribution.cam",
    "open_source": "datasets",
    "TrainConfig": "training",
    "train": "training",
    "load_run": "training",
}
__all__ = [
    "AlignedTripletLoss",
    "Hierarchy",
    "TrainConfig",
    "class_activation_maps",
    "hierarchical_metrics",
    "load_run",
    "max_box_acc",
    "minimum_risk_labels",
    "open_source",
    "train",
]

if TYPE_CHECKING:
    from ckfr_helpers.attribution.cam import class_activation_maps
    from ckfr_helpers.datasets import open_source
    from ckfr_helpers.hierarchy import Hierarchy
    from ckfr_helpers.localization import max_box_acc
    from ckfr_helpers.losses import AlignedTripletLoss
    from ckfr_helpers.metrics import hierarchical_metrics, minimum_risk_labels
    from ckfr_helpers.training import TrainConfig, load_run, train


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
