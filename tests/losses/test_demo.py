"""The released demo's metric term against its formula, and where it leaves the stated one."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckfr_helpers.losses import (
    draw_triplets,
    latent_distances,
    three_view_loss,
)
from ckfr_helpers.losses.demo import released_line_loss


def distances(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latent = latent_distances(torch.randn(size, 3, generator=generator, dtype=torch.float64))
    labels = torch.randint(3, (size,), generator=generator)
    heights = torch.tensor([[0.0, 1, 3], [1, 0, 2], [3, 2, 0]], dtype=torch.float64)
    return latent, heights[labels][:, labels]


def test_drawn_triplets_are_distinct_and_cover_the_batch():
    generator = torch.Generator().manual_seed(0)
    triplets = torch.cat([draw_triplets(5, generator) for _ in range(200)])
    assert all(len(set(row)) == 3 for row in triplets.tolist())
    assert {tuple(row) for row in triplets.tolist()} == set(itertools.permutations(range(5), 3))


def test_three_view_form_by_hand():
    views = tuple(torch.randn(6, 4, dtype=torch.float64) for _ in range(3))
    delta_12, delta_13 = torch.rand(6).double(), torch.rand(6).double()
    z1, z2, z3 = ((v.numpy() - v.numpy().mean()) / v.numpy().std(ddof=1) for v in views)
    d12, d13 = (np.abs(z1 - z2) ** 1.2).mean(1), (np.abs(z1 - z3) ** 1.2).mean(1)
    expected = np.abs(d12 * delta_13.numpy() - d13 * delta_12.numpy()).mean()
    assert float(three_view_loss(views, delta_12, delta_13, 1.2)) == pytest.approx(expected, rel=1e-12)


@given(st.integers(3, 7), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_released_line_is_the_aligned_term_with_the_wrong_label(size, seed):
    latent, knowledge = distances(size, seed)
    terms = []
    for a, p, n in itertools.permutations(range(size), 3):
        delta_ap = float(knowledge[a, p])
        delta_an = delta_ap  # the line: the third label is read with the second image's index
        terms.append(abs(float(latent[a, p]) * delta_an - float(latent[a, n]) * delta_ap))
    assert float(released_line_loss(latent, knowledge)) == pytest.approx(np.mean(terms), abs=1e-12)
    triplets = torch.tensor(list(itertools.permutations(range(size), 3)))
    assert float(released_line_loss(latent, knowledge, triplets)) == pytest.approx(np.mean(terms), abs=1e-12)
