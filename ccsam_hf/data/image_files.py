"""Image files: which files of a folder are images, and one image as 8-bit RGB, decoded alike in training and after.

Pillow cuts values above 255 off when it converts to RGB, which turns a 16-bit image white and a float image black.
Here 16-bit values are scaled by 255/65535 and floats in 0..1 by 255; anything else is refused.
"""

from __future__ import annotations

import os
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, features
from torch import Tensor

ImageInput = Image.Image | str | os.PathLike[str] | bytes | bytearray | np.ndarray | Tensor
_NOT_AN_IMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
_ALWAYS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
# Pillow decodes AVIF from version 11.3 on, where its wheel was built with it.
IMAGE_SUFFIXES = frozenset(_ALWAYS + ((".avif",) if features.check("avif") else ()))
# Formats whose 32-bit mode "I" holds 16-bit values (older Pillow reads 16-bit PNG and PGM so).
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
SKIP_HINT = "replace it, or load with `skip_broken_images` (--skip_broken_images)"


def images_below(root: Path) -> tuple[list[str], Counter[str]]:
    """(image files, count of the other files by extension) below `root`.

    The files are paths relative to `root`, sorted; an image is recognised by its extension (`IMAGE_SUFFIXES`). Hidden
    files are passed over. A file without an extension counts under "".

    Raises:
        ValueError: the folder does not exist or may not be listed.
    """
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}; {contents(root.parent)}")
    paths: list[str] = []
    others: Counter[str] = Counter()
    for parent, _, found in os.walk(root, followlinks=True, onerror=_raise_permission):
        for file in found:
            suffix = os.path.splitext(file)[1].lower()
            if file.startswith("."):
                continue
            if suffix in IMAGE_SUFFIXES:
                paths.append(os.path.relpath(os.path.join(parent, file), root))
            else:
                others[suffix] += 1
    return sorted(paths), others


def left_out_text(others: Counter[str]) -> str:
    """The files that were left out, in words: "2 without extension, 1 .txt"; "" for none."""
    return ", ".join(f"{count} {suffix or 'without extension'}" for suffix, count in sorted(others.items()))


def contents(folder: Path) -> str:
    """What a message says about a folder that lacks something."""
    if not folder.is_dir():
        return f"its folder {folder} does not exist either"
    try:
        names = sorted(os.listdir(folder))
    except PermissionError:
        return f"{folder} may not be listed (no permission)"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"{folder} holds {shown or 'nothing'}"


def open_rgb(stored: dict[str, Any], where: str) -> Image.Image:
    """One undecoded `datasets.Image` value as 8-bit RGB, upright as the camera's orientation says.

    Raises:
        ValueError: it cannot be decoded; names its file and `where` it is.
    """
    content, path = stored["bytes"], stored["path"]
    try:
        with Image.open(path if content is None else BytesIO(content)) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return eight_bit(image).convert("RGB")
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more, by format
        name = f"{path} ({where})" if path else where
        raise ValueError(
            f"The image {name} cannot be decoded ({type(error).__name__}: {error}): {SKIP_HINT}"
        ) from error


def open_image(image: ImageInput, number: int = 0) -> Image.Image:
    """An 8-bit Pillow image from a Pillow image, a path, the bytes of a file, an array or a tensor.

    Arrays are [H, W] or [H, W, 1, 3 or 4], tensors [H, W] or [1, 3 or 4, H, W]. Values are uint8; uint16 is scaled by
    255/65535 and floats in 0..1 by 255.

    Raises:
        ValueError: not an image, or values of unknown range; names the file, or the image's number in the list.
    """
    name = f"image {number}"
    if isinstance(image, Tensor):
        return _from_array(_channels_last(image, name), name)
    if isinstance(image, np.ndarray):
        return _from_array(image, name)
    if isinstance(image, Image.Image):
        return _decoded(image, name)
    if isinstance(image, bytes | bytearray):
        return _decoded(BytesIO(image), name)
    if isinstance(image, str | os.PathLike):
        path = _checked_path(image)
        return _decoded(path, path)
    raise ValueError(f"{name} is of type {type(image).__name__}: pass Pillow images, paths, bytes, arrays or tensors.")


def _decoded(source: Image.Image | str | BytesIO, name: str) -> Image.Image:
    try:
        image = source if isinstance(source, Image.Image) else Image.open(source)
        image.load()
        if 0 in image.size:
            raise ValueError("it holds no pixel")
        image = _upright_eight_bit(image)
    except _NOT_AN_IMAGE as error:
        raise ValueError(f"{name} cannot be read as an image: replace it or leave it out. ({error})") from error
    return image


def _checked_path(image: str | os.PathLike[str]) -> str:
    path = os.fspath(image)
    scheme = path.partition(":")[0].lower()
    if "://" in path or scheme == "data":
        raise ValueError(f"{path[:80]!r} is a URL, which predict does not open: download it and pass its bytes.")
    if not Path(path).is_file():
        raise ValueError(f"There is no image file {path!r}: check the path.")
    return path


def _upright_eight_bit(image: Image.Image) -> Image.Image:
    """Scaling makes a new image without the camera's orientation, which is therefore applied before."""
    return image if eight_bit(image) is image else eight_bit(ImageOps.exif_transpose(image))


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.size == 0:
        raise ValueError(f"{name} is an array of shape {array.shape}, which holds no pixel: leave it out.")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ValueError(
            f"{name} is an array of shape {array.shape}: pass [H, W] or [H, W, 1, 3 or 4], several images of one size "
            "as [N, H, W, 1, 3 or 4], of several sizes as a list."
        )
    try:
        return Image.fromarray(to_uint8(array))
    except ValueError as error:
        raise ValueError(
            f"{name} cannot be taken as an image: {error}. Inputs that are normalised already go to classifier.model."
        ) from error


def _channels_last(tensor: Tensor, name: str) -> np.ndarray:
    """[C, H, W] as an array [H, W, C], and [H, W] as it is."""
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[0] not in (1, 3, 4)):
        raise ValueError(
            f"{name} is a tensor of shape {list(tensor.shape)}: pass [H, W] or [1, 3 or 4, H, W], several images of "
            "one size as [N, 1, 3 or 4, H, W]."
        )
    tensor = tensor.detach().cpu()
    values = (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
    return values if values.ndim == 2 else values.transpose(1, 2, 0)


def eight_bit(image: Image.Image) -> Image.Image:
    """The image itself where its mode holds 8 bits a channel; 16-bit and float images scaled to mode "L".

    Raises:
        ValueError: floats outside 0..1; 32-bit integers, whose range is unknown.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BIT_FORMATS):
        return Image.fromarray(to_uint8(np.asarray(image).astype(np.uint16)))
    if image.mode == "I":
        raise ValueError("it holds 32-bit integers of unknown range: convert it to 8 bits a channel")
    if image.mode == "F":
        return Image.fromarray(to_uint8(np.asarray(image)))
    return image


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Pixel values on the scale 0..255: uint8 as it is, uint16 divided by 257, floats in 0..1 times 255, rounded.

    Raises:
        ValueError: floats that are not finite or lie outside 0..1; another type.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"it holds {values.dtype}: convert it to uint8 values from 0 to 255")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # NaN compares false
        raise ValueError(
            f"it holds floats from {low:g} to {high:g}, of which only the range 0..1 has a meaning: divide by the "
            "largest possible value, or convert it to uint8 values from 0 to 255"
        )
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def image_fault(path: Path) -> str | None:
    """Why an image file cannot be used, or None. Decodes it on a small scale where the format allows it."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (32, 32))
            image.load()
            eight_bit(image)
    except FileNotFoundError:
        return "the file does not exist"
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more, by format
        return f"{type(error).__name__}: {error}"
    return None


def _raise_permission(error: OSError) -> None:
    raise ValueError(f"No permission to list {error.filename}: change its mode") from error
