"""Notes that are drawn given the class: the product with the exact posterior is what nothing can beat."""

import pytest
import torch
import torch.nn.functional as F
from flat_colours import TREE

from ckfr_helpers.contrastive import combine
from ckfr_helpers.contrastive.density import GridPrior, KernelPrior
from ckfr_helpers.contrastive.fusion import fit_temperature
from ckfr_helpers.contrastive.prior import GeoPrior
from ckfr_helpers.datasets.field_notes import FieldNotes

WORLD = FieldNotes(TREE, kappa=8.0, season_kappa=1.0, homes=2, seed=4)


def split(rows, seed, **options):
    """Pictures whose exact posterior is known: Gaussian features about one corner a class."""
    labels = torch.arange(rows) % 4
    draw = torch.Generator().manual_seed(seed)
    features = 1.5 * F.one_hot(labels, 4) + torch.randn(rows, 4, generator=draw, dtype=torch.float64)
    return (1.5 * features).log_softmax(1), WORLD.draw(labels.numpy(), seed=seed, **options), labels


def log_loss(log_probabilities, labels):
    return float(F.nll_loss(log_probabilities.double(), labels))


@pytest.fixture(scope="module")
def learnt():
    _, notes, labels = split(400, 1)
    torch.manual_seed(0)
    network = GeoPrior(4, width=32, blocks=1, dropout=0.1)
    priors = [GridPrior(4, cells=(9, 6, 4)), KernelPrior(4, place_kappa=15.0, date_kappa=1.0)]
    return [
        network.fit(*notes, labels, epochs=15, batch_size=64, learning_rate=5e-3),
        *(prior.fit(*notes, labels) for prior in priors),
    ]


def test_the_exact_product_is_the_ceiling_and_learnt_priors_lie_between(learnt):
    image, notes, labels = split(2000, 2)
    alone, exact = log_loss(image, labels), log_loss(combine(image, WORLD.log_probabilities(*notes)), labels)
    assert exact < 0.7 * alone
    for prior in learnt:
        assert exact < log_loss(combine(image, prior.log_probabilities(*notes)), labels) < alone


def test_shuffling_within_a_class_costs_nothing_and_over_all_costs_more_than_no_note():
    image, notes, labels = split(2000, 2)
    alone, exact = log_loss(image, labels), log_loss(combine(image, WORLD.log_probabilities(*notes)), labels)
    _, within, _ = split(2000, 2, shuffle="class")
    _, over, _ = split(2000, 2, shuffle="all")
    assert log_loss(combine(image, WORLD.log_probabilities(*within)), labels) == pytest.approx(exact, rel=0.1)
    assert log_loss(combine(image, WORLD.log_probabilities(*over)), labels) > alone


def test_the_exact_product_is_calibrated_and_lost_notes_cost_their_share():
    image, notes, labels = split(4000, 3)
    product = combine(image, WORLD.log_probabilities(*notes))
    assert fit_temperature(product, labels) == pytest.approx(1, abs=0.1)
    _, half, _ = split(4000, 3, missing=0.5)
    loss = log_loss(combine(image, WORLD.log_probabilities(*half)), labels)
    assert loss == pytest.approx((log_loss(image, labels) + log_loss(product, labels)) / 2, rel=0.05)
