import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, RandAugment

from ccsam_hf.data.augment import (
    CIFAR_POLICY,
    RANDOM_OPS,
    apply_operations,
    autoaugment_operations,
    randaugment_operations,
    strength,
)
from ccsam_hf.data.draws import DrawKeys
from ccsam_hf.data.pixel_ops import FILL, PIXEL_OPS, affine


def smooth_images(count: int, size: int = 32) -> torch.Tensor:
    """Photograph-like: smooth colours and a little noise, with some constant channels among them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator) * 200 + 20
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    images = (fine + 10 * torch.randn(fine.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    images[0, 1] = 77
    return images


IMAGES = smooth_images(6)


def pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def warp(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=(FILL,) * 3)


# Each operation as the policies' usual code does it, image by image with PIL: (strength, function, tolerated share of
# differing values, tolerated difference elsewhere).
REFERENCES = {
    "shear_x": (0.23, lambda im, s: warp(im, (1, s, 0, 0, 1, 0)), 0.001, 0),
    "shear_y": (-0.3, lambda im, s: warp(im, (1, 0, 0, s, 1, 0)), 0.001, 0),
    "translate_x": (0.3, lambda im, s: warp(im, (1, 0, -int(s * 32), 0, 1, 0)), 0, 0),
    "translate_y": (-0.2, lambda im, s: warp(im, (1, 0, 0, 0, 1, -int(s * 32))), 0, 0),
    "rotate": (25.0, lambda im, s: im.rotate(s, fillcolor=(FILL,) * 3), 0.001, 0),
    "brightness": (0.6, lambda im, s: ImageEnhance.Brightness(im).enhance(1 + s), 0, 1),
    "color": (-0.5, lambda im, s: ImageEnhance.Color(im).enhance(1 + s), 0, 1),
    "contrast": (0.7, lambda im, s: ImageEnhance.Contrast(im).enhance(1 + s), 0, 2),
    "sharpness": (0.8, lambda im, s: ImageEnhance.Sharpness(im).enhance(1 + s), 0, 2),
    "posterize": (5.0, lambda im, s: ImageOps.posterize(im, int(s)), 0, 0),
    "solarize": (100.0, lambda im, s: ImageOps.solarize(im, int(s)), 0, 0),
    "autocontrast": (0.0, lambda im, s: ImageOps.autocontrast(im), 0, 1),
    "equalize": (0.0, lambda im, s: ImageOps.equalize(im), 0, 0),
    "invert": (0.0, lambda im, s: ImageOps.invert(im), 0, 0),
    "identity": (0.0, lambda im, s: im, 0, 0),
}


@pytest.mark.parametrize("op", PIXEL_OPS)
def test_operations_do_what_pil_does(op):
    value, reference, share, tolerance = REFERENCES[op]
    ours = PIXEL_OPS[op](IMAGES, torch.full((len(IMAGES),), value))
    assert ours.dtype == torch.uint8
    theirs = torch.stack([torch.from_numpy(np.array(reference(pil(i), value))).permute(2, 0, 1) for i in IMAGES])
    differs = (ours.int() - theirs.int()).abs() > tolerance
    assert differs.float().mean() <= share


@pytest.mark.parametrize("op", PIXEL_OPS)
def test_an_image_is_the_same_in_every_batch(op):
    strengths = torch.full((6,), REFERENCES[op][0])
    together = PIXEL_OPS[op](IMAGES, strengths)
    for i in range(6):
        assert torch.equal(together[i : i + 1], PIXEL_OPS[op](IMAGES[i : i + 1], strengths[i : i + 1]))


def test_strengths_differ_within_a_batch():
    moved = PIXEL_OPS["translate_x"](IMAGES[:3], torch.tensor([0.0, 0.5, -0.5]))
    assert torch.equal(moved[0], IMAGES[0])
    assert torch.equal(moved[1, :, :, 16:], IMAGES[1, :, :, :16])
    assert (moved[1, :, :, :16] == FILL).all()
    assert torch.equal(moved[2, :, :, :16], IMAGES[2, :, :, 16:])


def test_a_quarter_turn_is_exact():
    quarter = PIXEL_OPS["rotate"](IMAGES, torch.full((6,), 90.0))
    assert torch.equal(quarter, torch.rot90(IMAGES, 1, (2, 3)))
    identity = torch.eye(2, 3).repeat(6, 1, 1)
    assert torch.equal(affine(IMAGES, identity), IMAGES)


def snake(name: str) -> str:
    return (
        name.replace("TranslateX", "translate_x")
        .replace("TranslateY", "translate_y")
        .replace("ShearX", "shear_x")
        .replace("ShearY", "shear_y")
        .lower()
    )


def test_the_policy_is_the_published_one():
    published = AutoAugment(AutoAugmentPolicy.CIFAR10).policies
    assert len(published) == len(CIFAR_POLICY)
    for ours, theirs in zip(CIFAR_POLICY, published, strict=True):
        assert [(op, p, level) for op, p, level in ours] == [(snake(n), p, m or 0) for n, p, m in theirs]


def test_strengths_are_the_published_ones():
    space = AutoAugment(AutoAugmentPolicy.CIFAR10)._augmentation_space(10, (32, 32))
    for name, (magnitudes, _) in space.items():
        if magnitudes.ndim:
            per_pixel = 32 if name.startswith("Translate") else 1
            ours = [strength(snake(name), level / 9) * per_pixel for level in range(10)]
            np.testing.assert_allclose(ours, magnitudes, rtol=1e-5)
    names = {snake(name) for name in RandAugment()._augmentation_space(31, (32, 32))}
    assert set(RANDOM_OPS) == names


def keys(count: int) -> DrawKeys:
    return DrawKeys(np.zeros(count, np.int64), np.arange(count))


def test_autoaugment_applies_operations_as_often_as_the_policy_says():
    stages = autoaugment_operations(keys(50_000), seed=0, stream=5)
    names = list(PIXEL_OPS)
    for stage, operations in enumerate(stages):
        for op in names[1:]:
            expected = sum(pair[stage][1] for pair in CIFAR_POLICY if pair[stage][0] == op) / len(CIFAR_POLICY)
            assert abs((operations.ops == names.index(op)).mean() - expected) < 0.006
        rotated = operations.strengths[operations.ops == names.index("shear_y")]
        assert stage == 1 or abs((rotated < 0).mean() - 0.5) < 0.05


def test_randaugment_draws_every_operation_alike_at_one_magnitude():
    stages = randaugment_operations(keys(20_000), seed=0, stream=5, num_ops=3, magnitude=15)
    assert len(stages) == 3
    names = list(PIXEL_OPS)
    for operations in stages:
        shares = np.bincount(operations.ops, minlength=len(names))[: len(RANDOM_OPS)] / 20_000
        np.testing.assert_allclose(shares, 1 / len(RANDOM_OPS), atol=0.006)
        turned = operations.strengths[operations.ops == names.index("rotate")]
        assert set(np.abs(turned)) == {np.float32(15.0)}


def test_operations_are_applied_one_stage_after_the_other():
    stages = randaugment_operations(keys(6), seed=3, stream=5)
    together = apply_operations(IMAGES, stages)
    for i in range(6):
        image = IMAGES[i : i + 1]
        for stage in stages:
            op = list(PIXEL_OPS)[stage.ops[i]]
            image = PIXEL_OPS[op](image, torch.from_numpy(stage.strengths[i : i + 1]))
        assert torch.equal(together[i : i + 1], image)
