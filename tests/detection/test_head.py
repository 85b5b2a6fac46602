"""WSDDN's head: its formula, its identities, its loss and its regulariser, against what is written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from ckfr_helpers.attribution.boxes import iou_matrix
from ckfr_helpers.detection import image_scores, wsddn_scores
from ckfr_helpers.detection.head import PRESETS, TwoStream, image_loss, spatial_regulariser
from ckfr_helpers.runtime import CkfrError


def logits(regions, classes, seed=0, size=3.0):
    draw = torch.Generator().manual_seed(seed)
    return (size * torch.randn(2, regions, classes, generator=draw, dtype=torch.float64)).unbind()


def test_scores_are_the_product_of_two_softmaxes_written_out():
    c, d = logits(4, 3)
    found = wsddn_scores(c, d, 0.5, 2.0)
    for r in range(4):
        for k in range(3):
            of_class = math.exp(c[r, k] / 0.5) / sum(math.exp(c[r, j] / 0.5) for j in range(3))
            of_region = math.exp(d[r, k] / 2) / sum(math.exp(d[q, k] / 2) for q in range(4))
            assert found[r, k].item() == pytest.approx(of_class * of_region, rel=1e-12)


def test_one_region_gives_the_softmax_of_its_classes():
    c, d = logits(1, 5)
    torch.testing.assert_close(image_scores(wsddn_scores(c, d)), c[0].softmax(0))


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_shares_whatever_the_order_or_number_of_copies_of_regions(seed):
    c, d = logits(9, 4, seed, size=10.0)
    scores = wsddn_scores(c, d, 1.5, 0.7)
    picture = image_scores(scores)
    assert scores.min() >= 0
    assert scores.sum(1).max() <= 1 + 1e-12
    assert picture.max() <= 1 + 1e-12
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(wsddn_scores(c[order], d[order], 1.5, 0.7), scores[order])
    twice = wsddn_scores(c.repeat(2, 1), d.repeat(2, 1), 1.5, 0.7)
    torch.testing.assert_close(image_scores(twice), picture)
    torch.testing.assert_close(twice[:9], scores / 2)


def test_a_row_of_minus_infinity_is_no_region():
    c, d = logits(6, 3)
    d[4:] = -torch.inf
    scores = wsddn_scores(c, d)
    assert not scores[4:].any()
    torch.testing.assert_close(scores[:4], wsddn_scores(c[:4], d[:4]))


@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_ragged_pictures_together_are_each_alone(preset, hidden):
    torch.manual_seed(0)
    head = TwoStream.preset(preset, 6, 4, hidden=hidden) if preset else TwoStream(6, 4, hidden, dropout=0.5)
    head.eval()
    counts, features, scores = torch.tensor([3, 1, 7]), torch.randn(11, 6), torch.rand(11)
    together = head(features, counts, scores)
    assert together.shape == (3, 7, 4)
    start = 0
    for number, count in enumerate(counts.tolist()):
        own = slice(start, start + count)
        embedded = head.embed(features[own], scores[own])
        c, d = head.class_stream(embedded), head.detection_stream(embedded)
        alone = wsddn_scores(c, d, head.class_temperature, head.detection_temperature)
        torch.testing.assert_close(together[number, :count], alone)
        assert not together[number, count:].any()
        start += count


def test_presets_say_what_the_sources_do():
    found = {name: TwoStream.preset(name, 2, 2) for name in PRESETS}
    assert [head.detection_temperature for head in found.values()] == [2, 1, 1]
    x, s = torch.tensor([[1.0, -2.0]]), torch.tensor([0.5])
    assert found["hbilen"].embed(x, s).tolist() == [[6, -12]]
    assert found["adursun"].embed(x, s).tolist() == found["mlic"].embed(x, s).tolist() == [[0.5, -1]]
    assert TwoStream(2, 2, length=3).embed(x).norm().item() == pytest.approx(3)
    torch.testing.assert_close(TwoStream(2, 2).embed(x), TwoStream(2, 2).embed(7 * x))


def test_sharpening_divides_both_temperatures():
    head = TwoStream(5, 3, class_temperature=1.0, detection_temperature=2.0, length=None)
    features, counts = torch.randn(4, 5), torch.tensor([4])
    sharp = head.score(head.embed(features), counts, 4, sharpen=2)[0]
    c, d = head.class_stream(features), head.detection_stream(features)
    torch.testing.assert_close(sharp, wsddn_scores(2 * c, d))


def test_the_loss_is_the_formula_and_that_of_wsddn_pytorch():
    scores = torch.rand(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    labels = (torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    labels[3] = 0  # a picture in which nothing is
    expected = sum(
        -math.log(p) if y else -math.log(1 - p)
        for p, y in zip(scores.flatten().tolist(), labels.flatten().tolist(), strict=True)
    )
    assert image_loss(scores, labels).item() == pytest.approx(expected / 5, rel=1e-12)
    theirs = F.binary_cross_entropy(scores[0].clamp(0, 1), labels[0], reduction="sum")
    assert image_loss(scores[0], labels[0], clamp=0).item() == pytest.approx(theirs.item(), rel=1e-12)


def test_a_score_beyond_the_clamp_keeps_a_bounded_gradient():
    scores = torch.tensor([1e-9, 1 + 1e-7], requires_grad=True)
    loss = image_loss(scores, torch.tensor([1.0, 0.0]), clamp=1e-4)
    assert loss.item() == pytest.approx(-2 * math.log(1e-4), rel=1e-3)
    loss.backward()
    assert scores.grad.tolist() == pytest.approx([-1e4, 1e4], rel=1e-2)
    assert image_loss(torch.tensor([1 + 1e-7]), torch.tensor([1]), clamp=0).item() == 0


def written_out(features, scores, boxes, top, overlap):
    """The formula by loops, with p as plain numbers; one value a class."""
    overlaps = iou_matrix(boxes.numpy(), boxes.numpy())
    values = []
    for label in range(scores.shape[1]):
        p = scores[:, label].tolist()
        order = sorted(range(len(p)), key=lambda r: -p[r])[:top]
        near = [r for r in order[1:] if overlaps[r, order[0]] > overlap]
        parts = [0.5 * ((p[r] * (features[r] - features[order[0]])) ** 2).sum() for r in near]
        values.append(sum(parts, torch.zeros((), dtype=torch.float64)))
    return torch.stack(values)


def test_the_regulariser_and_its_gradient_are_those_of_the_formula():
    draw = torch.Generator().manual_seed(0)
    first = torch.randint(0, 4, (30, 2), generator=draw)
    boxes = torch.cat([first, first + torch.randint(8, 14, (30, 2), generator=draw)], 1).double()
    features = torch.randn(30, 5, dtype=torch.float64, generator=draw, requires_grad=True)
    scores = torch.rand(30, 3, dtype=torch.float64, generator=draw, requires_grad=True)
    found = spatial_regulariser(features, scores, boxes)
    expected = written_out(features, scores, boxes, 10, 0.6)
    assert expected.min() > 0
    torch.testing.assert_close(found, expected)
    labels = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    mine, theirs = (torch.autograd.grad((v * labels).sum(), features)[0] for v in (found, expected))
    torch.testing.assert_close(mine, theirs)
    assert scores.grad is None


def test_the_regulariser_sees_only_what_lies_on_the_best_region():
    boxes = torch.tensor([[0.0, 0, 9, 9], [1, 0, 9, 9], [50, 50, 59, 59]])
    scores = torch.tensor([[0.9], [0.5], [0.8]])
    features = torch.tensor([[1.0], [3.0], [100.0]])
    assert spatial_regulariser(features, scores, boxes).item() == pytest.approx(0.5 * (0.5 * 2) ** 2)
    assert spatial_regulariser(features, scores, boxes, overlap=0.9).item() == 0  # it is exactly 0.9
    assert spatial_regulariser(features[:1], scores[:1], boxes[:1]).item() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: wsddn_scores(torch.zeros(0, 3), torch.zeros(0, 3)),
            "no region to score; expected at least one",
        ),
        (
            lambda: wsddn_scores(torch.zeros(2, 3), torch.zeros(3, 3)),
            r"\(2, 3\) and \(3, 3\); expected \(R, C\)",
        ),
        (lambda: wsddn_scores(torch.zeros(2, 3), torch.zeros(2, 3), 0.0), "class_temperature is 0.0"),
        (lambda: image_scores(torch.zeros(3)), r"have shape \(3,\); expected \(R, C\)"),
        (
            lambda: image_loss(torch.full((1, 2), 0.5), torch.tensor([[0, 2]])),
            "Labels hold 2; expected 0 or 1",
        ),
        (
            lambda: image_loss(torch.full((1, 2), 0.5), torch.tensor([0, 1])),
            r"shape \(2,\); expected \(1, 2\)",
        ),
        (lambda: image_loss(torch.full((1, 2), 0.5), torch.tensor([[0, 1]]), clamp=0.5), "clamp is 0.5"),
        (lambda: TwoStream.preset("caffe", 2, 2), "no preset 'caffe'; expected one of hbilen, adursun, mlic"),
        (lambda: TwoStream(2, 2, length=0.0), "length is 0.0"),
        (lambda: TwoStream(2, 0), "classes is 0"),
    ],
)
def test_mistakes_get_one_sentence(call, message):
    with pytest.raises(CkfrError, match=message):
        call()
