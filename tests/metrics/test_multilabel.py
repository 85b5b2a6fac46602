"""Multi-label scores against scikit-learn, torchmetrics and a loop written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import precision_recall_fscore_support
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

from ckfr_helpers.metrics import class_average_precisions, multilabel_metrics
from ckfr_helpers.runtime import CkfrError


def sample(seed=0, n=60, classes=5):
    """Scores and targets where every class has a positive, and a picture has none."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((n, classes)) < 0.3).astype(int)
    targets[0], targets[1] = 0, 1
    return np.clip(0.4 * targets + 0.8 * generator.random((n, classes)) - 0.1, 0, 1), targets


def literal(answers, targets) -> dict[str, float]:
    """Precision, recall and F1 counted one by one."""
    n, classes = len(targets), len(targets[0])
    precisions, recalls, right_all, given_all, there_all = [], [], 0, 0, 0
    for label in range(classes):
        right = sum(bool(answers[i][label] and targets[i][label]) for i in range(n))
        answered = sum(bool(answers[i][label]) for i in range(n))
        there = sum(bool(targets[i][label]) for i in range(n))
        precisions.append(right / answered if answered else 0.0)
        recalls += [right / there] if there else []
        right_all, given_all, there_all = right_all + right, given_all + answered, there_all + there
    cp, cr = sum(precisions) / classes, sum(recalls) / len(recalls)
    op, orr = right_all / given_all if given_all else 0.0, right_all / there_all
    return {
        "CP": cp, "CR": cr, "CF1": 2 * cp * cr / (cp + cr) if cp + cr else 0.0,
        "OP": op, "OR": orr, "OF1": 2 * op * orr / (op + orr) if op + orr else 0.0,
    }  # fmt: skip


def test_against_torchmetrics_and_scikit_learn():
    scores, targets = sample()
    found = multilabel_metrics(scores, targets)
    predicted, true = torch.tensor(scores), torch.tensor(targets)
    assert found["mAP"] == pytest.approx(float(multilabel_average_precision(predicted, true, 5)), abs=1e-6)
    micro = multilabel_f1_score(predicted, true, 5, average="micro")
    assert found["OF1"] == pytest.approx(float(micro), abs=1e-6)
    for kind, average in (("C", "macro"), ("O", "micro")):
        p, r, f1, _ = precision_recall_fscore_support(targets, scores >= 0.5, average=average)
        assert (found[f"{kind}P"], found[f"{kind}R"]) == pytest.approx((p, r))
        if kind == "O":
            assert found["OF1"] == pytest.approx(f1)


@settings(max_examples=60, deadline=None)
@given(
    scores=arrays(float, (7, 4), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])),
    targets=arrays(int, (7, 4), elements=st.integers(0, 1)).filter(lambda drawn: drawn.any()),
    threshold=st.sampled_from([0.0, 0.5, 1.0]),
    top=st.integers(1, 6),
)
def test_against_a_loop_with_ties_empty_classes_and_empty_answers(scores, targets, threshold, top):
    found = multilabel_metrics(scores, targets, threshold, top)
    at_threshold = [[value >= threshold for value in row] for row in scores]
    highest = []
    for row in scores:
        best = sorted(range(4), key=lambda label: (-row[label], label))[:top]
        highest.append([label in best for label in range(4)])
    expected = literal(at_threshold, targets)
    expected |= {f"{name}@{top}": value for name, value in literal(highest, targets).items()}
    assert {name: value for name, value in found.items() if name != "mAP"} == pytest.approx(expected)


def test_average_precision_by_hand_and_a_class_nobody_has():
    scores = [[0.9, 0.3, 0.5], [0.8, 0.9, 0.5], [0.7, 0.2, 0.5], [0.1, 0.1, 0.5]]
    targets = [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    found = class_average_precisions(scores, targets)
    assert found[0] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(1 / 4)  # equal scores come together
    whole = multilabel_metrics(scores, targets)
    assert whole["mAP"] == pytest.approx(np.mean([found[0], found[2]]))
    assert whole["CR"] == pytest.approx(1)  # of the two classes that are there
    assert whole["CP"] == pytest.approx(np.mean([2 / 3, 0, 1 / 4]))


def test_tensors_of_any_precision_and_bool_targets():
    scores, targets = sample()
    rounded = torch.tensor(scores).bfloat16()
    expected = multilabel_metrics(rounded.double().numpy(), targets)
    assert multilabel_metrics(rounded, torch.tensor(targets).bool()) == expected
    assert multilabel_metrics(torch.tensor(scores), torch.tensor(targets).float()) == multilabel_metrics(
        scores, targets
    )


@pytest.mark.parametrize(
    ("scores", "targets", "options", "message"),
    [
        ([[0.1, np.nan]], [[0, 1]], {}, "NaN in row 0"),
        ([[0.1, 3.0]], [[0, 1]], {}, "run from 0.1 to 3; expected 0 to 1"),
        ([0.1, 0.3], [0, 1], {}, r"shape \(2,\); expected two dimensions"),
        ([[0.1, 0.3]], [[0, 1, 0]], {}, r"shape \(1, 3\); expected \(1, 2\)"),
        ([[0.1, 0.3]], [[0, 2]], {}, "sample 0, class 1 is 2; expected 0 or 1"),
        ([[0.1, 0.3]], [[0, np.nan]], {}, "class 1 is nan; expected 0 or 1"),
        ([[0.1, 0.3]], [[0, 0]], {}, "No target is 1"),
        ([[0.1, 0.3]], [[0, 1]], {"threshold": 1.5}, "threshold is 1.5"),
        ([[0.1, 0.3]], [[0, 1]], {"top": 0}, "top is 0"),
    ],
)
def test_bad_input_is_one_sentence(scores, targets, options, message):
    with pytest.raises(CkfrError, match=message):
        multilabel_metrics(scores, targets, **options)
