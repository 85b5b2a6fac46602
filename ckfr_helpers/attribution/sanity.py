"""Does a map depend on what the network has learned? Randomise the weights and see.

A map that looks the same after the weights are thrown away shows the picture, not the network. Adebayo et
al., "Sanity Checks for Saliency Maps" (NeurIPS 2018), randomise from the output backwards; so does this.
"""

import copy

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from ckfr_helpers.models.classifier import Classifier
from ckfr_helpers.runtime import CkfrError


def randomised(model: Classifier, stages: int, seed: int = 0) -> Classifier:
    """A copy whose classifier and last ``stages`` stages have fresh random weights.

    Each layer draws from its own initialisation; batch norm starts anew too, and then measures nothing: run
    in evaluation mode it passes values through. Earlier stages and the original are left alone.

    ``stages`` is 0 for the classifier alone, ``len(model.stages)`` for everything.
    """
    if not 0 <= stages <= len(model.stages):
        raise CkfrError(f"Cannot randomise {stages} stages; {model.name} has 0 to {len(model.stages)}.")
    changed = copy.deepcopy(model)
    chosen = [changed.classifier, *list(changed.stages)[len(changed.stages) - stages :]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in chosen:
            for module in part.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
                if isinstance(module, nn.Conv2d):  # so that values neither die out nor explode
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return changed.eval()


def map_similarity(first: Tensor | np.ndarray, second: Tensor | np.ndarray) -> np.ndarray:
    """Spearman rank correlation of two sets of maps: twice (N, H, W) -> (N,), 0 where one of two is flat.

    Give raw maps, since upsampling would count every place many times.
    """
    a, b = (np.asarray(maps, np.float64) for maps in (first, second))
    if a.shape != b.shape or a.ndim != 3:
        raise CkfrError(f"Maps have shapes {a.shape} and {b.shape}; expected (N, H, W) for both.")
    found = []
    for one, other in zip(a.reshape(len(a), -1), b.reshape(len(b), -1), strict=True):
        flat = np.ptp(one) == 0 or np.ptp(other) == 0
        found.append(0.0 if flat else float(stats.spearmanr(one, other).statistic))
    return np.array(found)
