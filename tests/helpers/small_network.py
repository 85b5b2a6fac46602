"""A network of two small stages that stands for `build_model` where weights and size do not matter."""

import torch
from torch import nn

from ckfr_helpers.models import Classifier


def small_network(name: str, num_classes: int, pretrained: bool = True, weights_path=None) -> Classifier:
    """Trunk and latent have "pretrained" weights, the same at every call; the classifier is the seed's."""
    state = torch.get_rng_state()
    torch.manual_seed(99)
    stages = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU()), nn.Sequential(nn.Conv2d(6, 8, 3), nn.Tanh())
    )
    torch.set_rng_state(state)
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
    return Classifier(stages, neck, nn.Linear(8, num_classes), name=name, gap_linear=True)
