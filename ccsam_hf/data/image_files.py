"""Are the listed images there, and whole? Looked at before training starts."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ccsam_hf.data.listing import ImageList, contents


def require_files(images: ImageList) -> None:
    """ValueError when a listed file is missing: names the first, its line, and where it was looked for.

    Reads one directory listing for each folder, not one entry for each image.
    """
    missing = missing_files(images)
    if len(missing) == 0:
        return
    first = int(missing[0])
    raise ValueError(
        f"{len(missing)} of {len(images)} images of {images.source} are missing, the first is {images.where(first)}; "
        f"looked for {images.root / images.paths[first]}; {contents(_existing_parent(images, first))}. "
        "Give the folder that the listed paths start from as `data_dir`, or drop broken images with "
        "`skip_broken_images` (--skip_broken_images)"
    )


def missing_files(images: ImageList) -> np.ndarray:
    """Positions of listed files that do not exist, ascending, int64."""
    folders: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(images.paths):
        folders[os.path.dirname(path)].append(position)
    missing: list[int] = []
    for folder, positions in folders.items():
        names = _names_in(images.root / folder)
        missing += [position for position in positions if os.path.basename(images.paths[position]) not in names]
    return np.sort(np.array(missing, np.int64))


def without_broken(images: ImageList) -> ImageList:
    """Only the entries whose file can be decoded whole; warns with the number and the first of the dropped ones.

    Decodes every image once, on a small scale where the format allows it.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        faults = list(pool.map(lambda path: image_fault(images.root / path), images.paths))
    broken = [position for position, fault in enumerate(faults) if fault]
    if not broken:
        return images
    shown = "; ".join(f"{images.where(position)}: {faults[position]}" for position in broken[:3])
    warnings.warn(f"Dropped {len(broken)} of {len(images)} images of {images.source}: {shown}", stacklevel=2)
    return images.select(np.array([position for position, fault in enumerate(faults) if not fault], np.int64))


def image_fault(path: Path) -> str | None:
    """Why an image file cannot be used, or None."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (32, 32))
            image.load()
    except FileNotFoundError:
        return "the file does not exist"
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError and more, by format
        return f"{type(error).__name__}: {error}"
    return None


def _names_in(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except PermissionError as error:
        raise ValueError(f"No permission to list the image folder {folder}: change its mode") from error


def _existing_parent(images: ImageList, position: int) -> Path:
    """The deepest folder on the way to an image that exists, but not above the root."""
    folder = (images.root / images.paths[position]).parent
    while not folder.is_dir() and folder != images.root:
        folder = folder.parent
    return folder
