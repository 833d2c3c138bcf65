"""Anything that holds one image -> a Pillow image -> the model's input."""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from transformers import BaseImageProcessor

ImageInput = Image.Image | str | os.PathLike[str] | bytes | bytearray | np.ndarray
ONE_IMAGE = (Image.Image, str, os.PathLike, bytes, bytearray, np.ndarray)
NOT_AN_IMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageTransform:
    """One image -> the model's input [channels, H, W], by the very steps of transformers' `pipeline`.

    The orientation of the camera is applied and every mode becomes RGB as Pillow does it (alpha and 16-bit depth are
    not scaled but cut off); a model with one input channel gets grey values.
    """

    processor: BaseImageProcessor
    channels: int = 3

    def __call__(self, image: Image.Image) -> Tensor:
        image = ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB")
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]


def open_image(image: ImageInput, number: int = 0) -> Image.Image:
    """A Pillow image from anything `predict` takes. ValueError: names the file, or the image's number in the list."""
    if isinstance(image, np.ndarray):
        return _from_array(image, f"image {number}")
    if isinstance(image, Image.Image):
        return _decoded(image, f"image {number}")
    if isinstance(image, bytes | bytearray):
        return _decoded(BytesIO(image), f"image {number}")
    if isinstance(image, str | os.PathLike):
        path = _checked_path(image)
        return _decoded(path, path)
    raise ValueError(f"image {number} is of type {type(image).__name__}: pass Pillow images, paths, bytes or arrays.")


def _decoded(source: Image.Image | str | BytesIO, name: str) -> Image.Image:
    try:
        image = source if isinstance(source, Image.Image) else Image.open(source)
        image.load()
        if 0 in image.size:
            raise ValueError("it holds no pixel")
    except NOT_AN_IMAGE as error:
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


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.dtype != np.uint8:
        raise ValueError(f"{name} is an array of {array.dtype}: convert it to uint8 values from 0 to 255.")
    if array.size == 0:
        raise ValueError(f"{name} is an array of shape {array.shape}, which holds no pixel: leave it out.")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ValueError(
            f"{name} is an array of shape {array.shape}: pass [H, W] or [H, W, 1, 3 or 4], several images as a list."
        )
    return Image.fromarray(array)
