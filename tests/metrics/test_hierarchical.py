"""Scores against scikit-learn and loops written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from ckfr_helpers import metrics
from ckfr_helpers.hierarchy import Hierarchy
from ckfr_helpers.runtime import CkfrError

TREE = Hierarchy.from_nested(
    {"all": {"animal": {"cat": ["lion", "tiger"], "bird": ["gull", "crow"]}, "tool": ["saw", "pan"]}}
)
D = TREE.distances("lca_height").astype(float)


def sample(seed=0, n=50, classes=6):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, classes)), generator.integers(classes, size=n)


def test_against_scikit_learn_and_loops():
    logits, labels = sample()
    found = metrics.hierarchical_metrics(logits, labels, D, ks=(1, 2, 5))
    assert found["top1"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert found["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=range(6)))
    mistakes = [D[p, y] for p, y in zip(logits.argmax(1), labels, strict=True) if p != y]
    assert found["mistake_severity"] == pytest.approx(sum(mistakes) / len(mistakes))
    for k in (1, 2, 5):
        total = 0.0
        for row, y in zip(logits, labels, strict=True):
            best = sorted(range(6), key=lambda c: -row[c])[:k]
            total += sum(D[c, y] for c in best) / k
        assert found[f"hdist@{k}"] == pytest.approx(total / len(labels))


def test_tensors_and_arrays_give_the_same_to_the_last_digit():
    """The two best scores differ in the tenth digit: in float32 they would tie, and the lower label win."""
    logits, labels = sample()
    logits[:, 5] = logits.max(axis=1) * (1 + 1e-10)
    tensors = metrics.hierarchical_metrics(torch.tensor(logits), torch.tensor(labels), torch.tensor(D))
    assert tensors == metrics.hierarchical_metrics(logits, labels, D)
    half = torch.tensor(logits).bfloat16()
    rounded = metrics.hierarchical_metrics(half.float().numpy(), labels, D)
    assert metrics.hierarchical_metrics(half, labels, D) == rounded


def test_all_right_and_all_wrong():
    labels = np.arange(6)
    right = metrics.hierarchical_metrics(np.eye(6), labels, D)
    assert right["top1"] == 1
    assert np.isnan(right["mistake_severity"])
    assert right["hdist@1"] == 0
    wrong = metrics.hierarchical_metrics(np.eye(6), [1, 0, 3, 2, 5, 4], D)
    assert wrong["top1"] == 0
    assert (
        wrong["mistake_severity"] == wrong["hdist@1"] == pytest.approx(np.mean([D[0, 1], D[2, 3], D[4, 5]]))
    )


def test_hdist_beyond_the_classes_counts_all_of_them():
    logits, labels = sample()
    found = metrics.hierarchical_metrics(logits, labels, D, ks=(6, 20))
    assert found["hdist@20"] == found["hdist@6"] == pytest.approx(D[labels].mean())


def test_ties_go_to_the_lower_label():
    assert metrics.ranking([[0.0, 1.0, 1.0, 0.0]]).tolist() == [[1, 2, 0, 3]]


def softmax(logits):
    return torch.tensor(logits).softmax(1).numpy()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_minimum_risk_against_a_loop_and_never_riskier_than_the_argmax(seed):
    probabilities = softmax(sample(seed, n=15)[0] * 2)
    risks = [[sum(D[k, j] * p[j] for j in range(6)) for k in range(6)] for p in probabilities]
    found = metrics.minimum_risk_labels(probabilities, D)
    assert found.tolist() == [int(np.argmin(np.round(r, 12))) for r in risks]
    chosen = np.take_along_axis(np.array(risks), found[:, None], 1)
    assert (chosen <= np.take_along_axis(np.array(risks), probabilities.argmax(1)[:, None], 1) + 1e-12).all()


def test_minimum_risk_takes_costs_that_differ_by_direction():
    """To call a poisonous mushroom edible costs more than the reverse: rows are answers, columns truths."""
    costs = [[0, 100], [1, 0]]
    assert metrics.minimum_risk_labels([[0.9, 0.1], [0.995, 0.005]], costs).tolist() == [1, 0]


def test_mistakes_by_hand():
    answers, labels = np.array([0, 1, 4]), np.array([0, 0, 5])
    assert metrics.mistake_distances(answers, labels, D).tolist() == [0, D[0, 1], D[4, 5]]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.hierarchical_metrics(np.zeros((2, 6)), [0], D), r"\(2, 6\); expected \(1, 6\)"),
        (
            lambda: metrics.hierarchical_metrics(np.zeros((1, 5)), [0], D),
            r"\(1, 5\); expected \(1, 6\)",
        ),
        (lambda: metrics.hierarchical_metrics(np.zeros((1, 6)), [6], D), "expected 0 to 5"),
        (lambda: metrics.hierarchical_metrics(np.zeros((1, 6)), [0.5], D), "integers"),
        (lambda: metrics.hierarchical_metrics(np.full((2, 6), np.nan), [0, 1], D), "NaN in row 0"),
        (lambda: metrics.hierarchical_metrics(np.zeros((0, 6)), np.zeros(0, int), D), "at least one"),
        (lambda: metrics.hierarchical_metrics(np.zeros((1, 6)), [0], D[:5]), "a row and a column"),
        (lambda: metrics.hierarchical_metrics(np.zeros((1, 6)), [0], D, ks=(0,)), "hdist@0"),
        (lambda: metrics.minimum_risk_labels(np.ones((1, 6)), D), "softmax"),
        (lambda: metrics.minimum_risk_labels(np.ones((1, 5)) / 5, D), "5 probabilities"),
        (lambda: metrics.hierarchical_metrics(np.zeros((1, 6)), [0], np.triu(D)), "same in both directions"),
        (lambda: metrics.minimum_risk_labels(np.ones((1, 6)) / 6, D * np.nan), "finite"),
    ],
)
def test_wrong_input_gets_one_sentence(call, sentence):
    with pytest.raises(CkfrError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
