"""Image operations of AutoAugment and RandAugment on batches of small images, on any device.

Each takes uint8 [B, 3, H, W] and a strength for each image, float32 [B], and gives uint8 of the same shape. An image's
result never depends on the rest of its batch: sums are of integers, and products and sums are separate kernels, which
round alike in vectorised and in left-over elements.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# What geometric operations show where the image does not reach: mid-grey, as in the policies' usual code.
FILL = 128


def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Nearest-neighbour warp; `matrix` float32 [B, 2, 3] maps output pixel (x, y, 1) to input (x, y), in pixels."""
    batch, channels, height, width = images.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device, dtype=torch.float32),
        torch.arange(width, device=images.device, dtype=torch.float32),
        indexing="ij",
    )
    m = matrix.to(images.device)[:, :, :, None, None]
    source_x = ((m[:, 0, 0] * x) + (m[:, 0, 1] * y) + m[:, 0, 2] + 0.5).floor().long()
    source_y = ((m[:, 1, 0] * x) + (m[:, 1, 1] * y) + m[:, 1, 2] + 0.5).floor().long()
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    flat = source_y.clamp(0, height - 1) * width + source_x.clamp(0, width - 1)
    index = flat.view(batch, 1, -1).expand(batch, channels, -1)
    warped = images.reshape(batch, channels, -1).gather(2, index).view_as(images)
    return torch.where(inside[:, None], warped, FILL)


def _matrix(images: Tensor, entries: dict[tuple[int, int], Tensor]) -> Tensor:
    matrix = torch.eye(2, 3).repeat(len(images), 1, 1)
    for (row, column), value in entries.items():
        matrix[:, row, column] = value
    return matrix


def shear_x(images: Tensor, slope: Tensor) -> Tensor:
    """Input x = x + slope * y, measured from the upper left corner (half a pixel before the first centre)."""
    return affine(images, _matrix(images, {(0, 1): slope, (0, 2): slope / 2}))


def shear_y(images: Tensor, slope: Tensor) -> Tensor:
    """Input y = y + slope * x, measured from the upper left corner (half a pixel before the first centre)."""
    return affine(images, _matrix(images, {(1, 0): slope, (1, 2): slope / 2}))


def translate_x(images: Tensor, fraction: Tensor) -> Tensor:
    """Moved right by int(fraction * width) pixels."""
    return affine(images, _matrix(images, {(0, 2): -(fraction * images.shape[3]).trunc()}))


def translate_y(images: Tensor, fraction: Tensor) -> Tensor:
    """Moved down by int(fraction * height) pixels."""
    return affine(images, _matrix(images, {(1, 2): -(fraction * images.shape[2]).trunc()}))


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turned counter-clockwise about the centre."""
    radians = torch.deg2rad(degrees.double())
    cos, sin = torch.cos(radians), torch.sin(radians)
    cx, cy = (images.shape[3] - 1) / 2, (images.shape[2] - 1) / 2
    entries = {(0, 0): cos, (0, 1): -sin, (0, 2): cx - cos * cx + sin * cy}
    entries |= {(1, 0): sin, (1, 1): cos, (1, 2): cy - sin * cx - cos * cy}
    return affine(images, _matrix(images, entries))


def _grey(images: Tensor) -> Tensor:
    """ITU-R 601 luma, rounded down, float32 [B, 1, H, W]."""
    red, green, blue = (images[:, c : c + 1].float() * w for c, w in enumerate((0.2989, 0.587, 0.114)))
    return (red + green + blue).floor()


def _blend(images: Tensor, base: Tensor, strength: Tensor) -> Tensor:
    """base + (1 + strength)(image - base), cut to 0..255 and rounded down; strength -1 gives the base."""
    factor = 1.0 + strength.to(images.device).view(-1, 1, 1, 1)
    kept, mixed = images.float() * factor, base * (1.0 - factor)
    return (kept + mixed).clamp(0, 255).to(torch.uint8)


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    """Against black."""
    return _blend(images, torch.zeros((), device=images.device), strength)


def color(images: Tensor, strength: Tensor) -> Tensor:
    """Against the image in grey."""
    return _blend(images, _grey(images), strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    """Against the image's mean grey."""
    pixels = images.shape[2] * images.shape[3]
    mean = _grey(images).long().sum((1, 2, 3), keepdim=True).float() / pixels
    return _blend(images, mean, strength)


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Against the image blurred by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; its border stays."""
    height, width = images.shape[2:]
    if min(height, width) < 3:
        return images
    whole = images.int()
    total = 4 * whole[:, :, 1:-1, 1:-1]
    for dy in range(3):
        for dx in range(3):
            total = total + whole[:, :, dy : dy + height - 2, dx : dx + width - 2]
    blurred = images.float()
    blurred[:, :, 1:-1, 1:-1] = (total.float() / 13).round()
    return _blend(images, blurred, strength)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Only the `bits` highest bits of each value."""
    mask = (256 - 2 ** (8 - bits.to(images.device).int())).to(torch.uint8)
    return images & mask.view(-1, 1, 1, 1)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Values from the threshold up are inverted."""
    return torch.where(images >= threshold.to(images.device).view(-1, 1, 1, 1), 255 - images, images)


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a constant channel stays."""
    low = images.amin((2, 3), keepdim=True).float()
    high = images.amax((2, 3), keepdim=True).float()
    scale = 255.0 / (high - low).clamp(min=1)
    stretched = ((images.float() - low) * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Each channel's histogram made flat; a channel with too few values stays."""
    rows = images.reshape(images.shape[0] * 3, -1).long()
    histogram = torch.zeros(len(rows), 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, rows, torch.ones_like(rows))
    largest = rows.amax(1, keepdim=True)
    step = (rows.shape[1] - histogram.gather(1, largest)) // 255
    before = histogram.cumsum(1) - histogram
    table = ((before + step // 2) // step.clamp(min=1)).clamp(0, 255)
    flat = torch.where(step > 0, table.gather(1, rows), rows)
    return flat.to(torch.uint8).view_as(images)


def invert(images: Tensor, _: Tensor) -> Tensor:
    """255 minus the image."""
    return 255 - images


PIXEL_OPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda images, _: images,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "invert": invert,
}
