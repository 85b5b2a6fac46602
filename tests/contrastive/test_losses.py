"""Each loss against its formula, pytorch-metric-learning, and what it must not see."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss

from ckfr_helpers.contrastive import soft_target_loss, supervised_contrastive_loss
from ckfr_helpers.contrastive.losses import PAIRS, mended_soft_target_loss, pair_losses, sum_over_pairs
from ckfr_helpers.runtime import CkfrError

LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 3])


def drawn(seed=0, rows=7, width=5):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, width, generator=draw, dtype=torch.float64)


def soft_targets_by_hand(first, second, temperature):
    """Loops over entries, as the released code's formula reads."""
    one, two = first.numpy(), second.numpy()
    rows = range(len(one))
    z = np.array([[one[i] @ two[j] / temperature for j in rows] for i in rows])
    s = np.array([[(one[i] @ one[j] + two[i] @ two[j]) / 2 * temperature for j in rows] for i in rows])
    t = np.array([[np.exp(s[i, j]) / sum(np.exp(s[i])) for j in rows] for i in rows])
    forth = [-sum(t[i, j] * (z[i, j] - np.log(sum(np.exp(z[i])))) for j in rows) for i in rows]
    back = [-sum(t[j, i] * (z[j, i] - np.log(sum(np.exp(z[:, i])))) for j in rows) for i in rows]
    return (np.mean(forth) + np.mean(back)) / 2


def supervised_by_hand(first, second, labels, temperature):
    total = 0.0
    for anchors, others in ((first, second), (second, first)):
        a, b = F.normalize(anchors, dim=1).numpy(), F.normalize(others, dim=1).numpy()
        for i in range(len(a)):
            scores = np.array([a[i] @ b[j] / temperature for j in range(len(b))])
            partners = [j for j in range(len(b)) if labels[j] == labels[i]]
            total -= np.mean([scores[p] - np.log(np.exp(scores).sum()) for p in partners]) / len(a) / 2
    return total


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_soft_targets_are_the_formula(temperature):
    first, second = drawn()
    expected = soft_targets_by_hand(first, second, temperature)
    assert float(soft_target_loss(first, second, temperature)) == pytest.approx(expected, rel=1e-12)


def test_the_slip_is_kept_in_one_and_mended_in_the_other():
    first, second = drawn()
    swapped = soft_target_loss(second, first)
    assert not torch.allclose(soft_target_loss(first, second), swapped, rtol=0.01)
    as_released = {"normalise": False, "detach": False}
    assert torch.allclose(
        mended_soft_target_loss(first, second, **as_released),
        mended_soft_target_loss(second, first, **as_released),
    )
    targets = ((first @ first.T + second @ second.T) / 2).softmax(1)
    logits = first @ second.T
    expected = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    assert torch.allclose(mended_soft_target_loss(first, second, **as_released), expected)


def test_options_of_the_mended_form():
    first, second = drawn()
    longer = 3 * first
    assert torch.allclose(mended_soft_target_loss(longer, second), mended_soft_target_loss(first, second))
    assert not torch.allclose(
        mended_soft_target_loss(longer, second, normalise=False),
        mended_soft_target_loss(first, second, normalise=False),
    )
    slopes = []
    for detach in (True, False):
        leaf = first.clone().requires_grad_()
        mended_soft_target_loss(leaf, second, detach=detach).backward()
        slopes.append(leaf.grad)
    assert not torch.allclose(*slopes)
    one, two = F.normalize(first, dim=1), F.normalize(second, dim=1)
    sharp = mended_soft_target_loss(one / 0.2**0.5, two / 0.2**0.5, normalise=False)
    assert torch.allclose(mended_soft_target_loss(first, second, temperature=0.2), sharp)


def test_the_supervised_form_is_the_formula_and_the_librarys():
    first, second = drawn()
    loss = supervised_contrastive_loss(first, second, LABELS, 0.3)
    assert float(loss) == pytest.approx(supervised_by_hand(first, second, LABELS, 0.3), rel=1e-12)
    # The library takes one and the same tensor of labels to mean that a row must not be its own partner.
    library = SupConLoss(temperature=0.3)
    forth = library(first, LABELS, ref_emb=second, ref_labels=LABELS.clone())
    back = library(second, LABELS, ref_emb=first, ref_labels=LABELS.clone())
    assert torch.allclose(loss, (forth + back) / 2)


def test_without_a_shared_class_it_is_clips_loss():
    first, second = drawn()
    own = torch.arange(len(first))
    library = NTXentLoss(temperature=0.07)
    forth = library(first, own, ref_emb=second, ref_labels=own.clone())
    back = library(second, own, ref_emb=first, ref_labels=own.clone())
    assert torch.allclose(supervised_contrastive_loss(first, second, own, 0.07), (forth + back) / 2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), order=st.permutations(range(7)), scale=st.floats(0.01, 100))
def test_what_the_losses_must_not_see(seed, order, scale):
    first, second = drawn(seed)
    losses = {
        "released": lambda a, b, y: soft_target_loss(a, b),
        "mended": lambda a, b, y: mended_soft_target_loss(a, b, 0.5),
        "supervised": lambda a, b, y: supervised_contrastive_loss(a, b, y),
    }
    for name, loss in losses.items():
        value = loss(first, second, LABELS)
        assert torch.allclose(loss(first[order], second[order], LABELS[order]), value), name
        if name != "released":
            assert torch.allclose(loss(second, first, LABELS), value), name
            assert torch.allclose(loss(scale * first, second, LABELS), value), name


def test_three_pairs_are_summed_in_the_released_order():
    parts = dict(zip(("image", "text", "metadata"), torch.cat([drawn(1), drawn(2)[:1]]), strict=True))
    found = pair_losses(parts, soft_target_loss, temperature=0.8)
    assert list(found) == ["text_image", "metadata_image", "text_metadata"]
    for (one, other), value in zip(PAIRS, found.values(), strict=True):
        assert torch.equal(value, soft_target_loss(parts[one], parts[other], 0.8))
    assert torch.allclose(sum_over_pairs(parts, soft_target_loss, temperature=0.8), sum(found.values()))
    with pytest.raises(CkfrError, match="no embedding 'sound'; expected one of image, text"):
        pair_losses(parts, soft_target_loss, pairs=[("sound", "image")])


def test_bad_input_is_one_sentence():
    first, second = drawn()
    with pytest.raises(CkfrError, match=r"\(7, 5\) and \(6, 5\); expected \(B, D\) twice"):
        soft_target_loss(first, second[:6])
    with pytest.raises(CkfrError, match="temperature is 0; expected a number above 0"):
        mended_soft_target_loss(first, second, 0)
    with pytest.raises(CkfrError, match=r"Labels have shape \(6,\); expected \(7,\)"):
        supervised_contrastive_loss(first, second, LABELS[:6])
