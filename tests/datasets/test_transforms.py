"""Pixel pipelines against the original's PIL pipeline and against arithmetic by hand."""

import numpy as np
import pytest
import torch
from flat_colours import FlatColours
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import v2

from ckfr_helpers.datasets.base import box_of_mask
from ckfr_helpers.datasets.loading import TransformedView
from ckfr_helpers.datasets.transforms import PIPELINES, make_transform, stored_side
from ckfr_helpers.runtime import CkfrError


def smooth_picture(height: int, width: int) -> torch.Tensor:
    """(3, height, width) uint8 with gentle waves: what a photograph is to a resize, without a file."""
    y = torch.linspace(0, 9, height)[:, None]
    x = torch.linspace(0, 7, width)[None, :]
    waves = torch.stack([torch.sin(x + y), torch.cos(x - y / 2), torch.sin(x * y / 9)])
    return ((waves + 1) * 127.5).to(torch.uint8)


def as_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", sorted(PIPELINES))
@pytest.mark.parametrize("train", [True, False])
def test_every_pipeline_gives_floats_of_the_size_asked_for(name, train):
    image = smooth_picture(20, 31)
    before = image.clone()
    torch.manual_seed(0)
    transform = make_transform(name, train, 32)
    out = transform(image)
    assert out.shape == (3, 32, 32)
    assert out.dtype == torch.float32
    assert 0 <= out.min() < 0.5 < out.max() <= 1
    assert torch.equal(image, before)  # sources that hold all pictures in memory must not be drawn on
    assert torch.equal(transform(image), out) != train


def test_original_eval_is_the_demos_pil_pipeline_to_one_grey_level():
    image = smooth_picture(375, 500)
    demo = v1.Compose([v1.Resize((256, 256)), v1.CenterCrop(224), v1.ToTensor()])
    ours = make_transform("original", train=False)(image)
    assert (ours - demo(as_pil(image))).abs().max() <= 1.01 / 255


def test_original_train_is_the_demos_pil_pipeline_step_for_step():
    """Same generator, same draws in the same order, so the two can be compared picture by picture.

    The demo says ``RandomRotation(10, interpolation=2)``, and 2 is PIL's number for bilinear. A rotation that
    takes the nearest pixel is 3 grey levels off here, one that rounds where PIL truncates 0.3.
    """
    # Fine grain on top, or a blur would change next to nothing and could be left out unnoticed.
    grain = torch.randint(0, 60, (3, 300, 400), generator=torch.Generator().manual_seed(0))
    image = (smooth_picture(300, 400) * 0.7 + grain).to(torch.uint8)
    bilinear = v1.InterpolationMode.BILINEAR
    demo = v1.Compose(
        [
            v1.RandomResizedCrop(256, scale=(0.9, 1.0), ratio=(0.75, 1.0)),
            v1.RandomHorizontalFlip(),
            v1.RandomAutocontrast(),
            v1.RandomRotation(10, interpolation=bilinear),
            v1.RandomApply([v1.GaussianBlur(5, sigma=(0.6, 1.5))], p=0.6),
            v1.CenterCrop(224),
            v1.ToTensor(),
        ]
    )
    ours = make_transform("original", train=True)
    for seed in range(20):
        torch.manual_seed(seed)
        expected = demo(as_pil(image))
        torch.manual_seed(seed)
        assert (ours(image) - expected).abs().mean() < 0.05 / 255, seed


@pytest.mark.parametrize("name", sorted(PIPELINES))
@pytest.mark.parametrize("train", [True, False])
def test_boxes_and_masks_move_with_the_picture(name, train):
    """A box stays around its mask, whatever crop, flip or turn; turned, a box is the wider for it."""
    source = FlatColours(per_class=10, size=96, noise=0, boxes=True, masks=True)
    view = TransformedView(source, make_transform(name, train, 96), keys=("label", "boxes", "masks"))
    flipped = 0
    for index in range(len(view)):
        image, target, _ = view[index]
        mask = target["masks"][0].numpy()
        assert target["masks"].shape == (1, 96, 96)
        turned = name == "original" and train  # and black corners, and other contrast
        found = (image - 128 / 255).abs().amax(0).numpy() > 0.15
        assert turned or (found != mask).mean() < 0.03, index
        box, around = target["boxes"][0].numpy(), np.array(box_of_mask(mask))
        assert (np.abs(box - around) < (22 if turned else 1.2)).all(), index
        assert (box[:2] - around[:2] < 2).all(), index
        assert (around[2:] - box[2:] < 2).all(), index
        before = source[index][1]["boxes"][0].numpy()
        flipped += abs((before[0] + before[2]) - (box[0] + box[2])) > 20
    assert flipped > 8 if train else flipped == 0


def test_a_flip_moves_boxes_by_whole_pixels():
    source = FlatColours(boxes=True)
    view = TransformedView(source, v2.RandomHorizontalFlip(1.0), keys=("boxes",))
    (x0, y0, x1, y1), (left, top, right, bottom) = source[3][1]["boxes"][0], view[3][1]["boxes"][0]
    assert (left, top, right, bottom) == (31 - x1, y0, 31 - x0, y1)


def test_normalisation_is_subtract_and_divide():
    image = smooth_picture(32, 32)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    torch.testing.assert_close(make_transform("light", False, 32)(image), image / 255, rtol=0, atol=1e-7)
    normal = make_transform("light", False, 32, mean, std)(image)
    expected = (image.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    np.testing.assert_allclose(normal, expected, atol=1e-6)


def test_stored_side_is_what_evaluation_resizes_to():
    for name, side in (("original", 256), ("light", 224)):
        image = smooth_picture(300, 400)
        assert stored_side(name, 224) == side
        stored = torch.tensor(np.array(as_pil(image).resize((side, side), Image.Resampling.BILINEAR)))
        transform = make_transform(name, train=False)
        difference = transform(image) - transform(stored.permute(2, 0, 1))
        assert difference.abs().max() <= 1.01 / 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nothing"}, "no transform 'nothing'; expected one of light, original"),
        ({"size": 0}, "size is 0; expected a whole number of at least 1"),
        ({"mean": (0.5, 0.5, 0.5)}, "expected three numbers, and three above 0"),
        ({"mean": (0.5, 0.5, 0.5), "std": (1, 0, 1)}, "expected three numbers, and three above 0"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message):
    with pytest.raises(CkfrError, match=message):
        make_transform(**{"name": "light", "train": True, **arguments})
