"""Pixel pipelines against the original's PIL pipeline and against arithmetic by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1

from ckfr_helpers.datasets.transforms import PIPELINES, make_transform
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
@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("shape", [(375, 500), (64, 64), (20, 31)])
def test_every_pipeline_gives_floats_of_the_size_asked_for(name, train, size, shape):
    image = smooth_picture(*shape)
    before = image.clone()
    out = make_transform(name, train, size)(image)
    assert out.shape == (3, size, size)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(image, before)  # sources that hold all pictures in memory must not be drawn on


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (84, 84)])
def test_original_eval_is_the_demos_pil_pipeline_to_one_grey_level(shape):
    image = smooth_picture(*shape)
    demo = v1.Compose([v1.Resize((256, 256)), v1.CenterCrop(224), v1.ToTensor()])
    ours = make_transform("original", train=False)(image)
    assert (ours - demo(as_pil(image))).abs().max() <= 1.01 / 255


def test_original_train_is_the_demos_pil_pipeline_step_for_step():
    """Same generator, same draws in the same order, so the two pipelines can be compared picture by picture.

    Rotation takes the nearest pixel and the autocontrast rounds, so single pixels may differ where PIL and
    tensors round differently; the pictures as a whole may not.
    """
    # Fine grain on top, or a blur would change next to nothing and could be left out unnoticed.
    grain = torch.randint(0, 60, (3, 300, 400), generator=torch.Generator().manual_seed(0))
    image = (smooth_picture(300, 400) * 0.7 + grain).to(torch.uint8)
    demo = v1.Compose(
        [
            v1.RandomResizedCrop(256, scale=(0.9, 1.0), ratio=(0.75, 1.0)),
            v1.RandomHorizontalFlip(),
            v1.RandomAutocontrast(),
            v1.RandomRotation(10),
            v1.RandomApply([v1.GaussianBlur(5, sigma=(0.6, 1.5))], p=0.6),
            v1.CenterCrop(224),
            v1.ToTensor(),
        ]
    )
    ours = make_transform("original", train=True)
    for seed in range(40):
        torch.manual_seed(seed)
        expected = demo(as_pil(image))
        torch.manual_seed(seed)
        assert (ours(image) - expected).abs().mean() < 0.1 / 255, seed


def test_light_eval_keeps_the_whole_picture_so_boxes_scale():
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    image[:, 10:20, 60:80] = 255  # touches the right edge
    out = make_transform("light", train=False, size=80)(image)[0] > 0.5
    rows, columns = torch.where(out)
    assert (int(rows.min()), int(rows.max())) == (20, 39)  # twice as tall
    assert (int(columns.min()), int(columns.max())) == (60, 79)  # as wide as before


def test_light_eval_leaves_a_picture_of_the_right_size_alone():
    image = smooth_picture(32, 32)
    torch.testing.assert_close(make_transform("light", False, 32)(image), image / 255, rtol=0, atol=1e-7)


def test_normalisation_is_subtract_and_divide():
    image = smooth_picture(32, 32)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    plain = make_transform("light", False, 32)(image)
    normal = make_transform("light", False, 32, mean, std)(image)
    expected = (plain.double() - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    np.testing.assert_allclose(normal, expected, atol=1e-6)


def test_training_forms_vary_and_evaluation_forms_do_not():
    image = smooth_picture(64, 64)
    for name in PIPELINES:
        train, fixed = make_transform(name, True, 32), make_transform(name, False, 32)
        assert not torch.equal(train(image), train(image))
        assert torch.equal(fixed(image), fixed(image))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nothing"}, "no transform 'nothing'; expected one of light, original"),
        ({"size": 0}, "positive number of pixels; got 0"),
        ({"mean": (0.5, 0.5, 0.5)}, "both mean and std"),
        ({"mean": (0.5, 0.5, 0.5), "std": (1, 1)}, "three positive stds"),
        ({"mean": (0.5, 0.5, 0.5), "std": (1, 0, 1)}, "three positive stds"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message):
    with pytest.raises(CkfrError, match=message):
        make_transform(**{"name": "light", "train": True, **arguments})
