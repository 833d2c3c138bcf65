"""iNaturalist's official JSON files (the COCO layout) as image lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ccsam_hf.data.listing import ImageList, read_text


def _slim(entry: dict[str, Any]) -> Any:
    """Keep two fields of each image, annotation and category: the rest (licences, sizes) is most of the file."""
    if "file_name" in entry:
        return entry["id"], entry["file_name"]
    if "category_id" in entry:
        return entry["image_id"], entry["category_id"]
    if "name" in entry and "id" in entry:
        return entry["id"], entry["name"]
    return entry


def read_inaturalist(path: Path, root: Path) -> tuple[ImageList, dict[int, str]]:
    """(images in the file's order, category names by id) of `train2018.json` or `val2018.json`.

    Raises:
        ValueError: unreadable or other JSON; an image without a category or with two.
    """
    try:
        content = json.loads(read_text(path, "Annotation file"), object_hook=_slim)
        images, annotations = content["images"], content["annotations"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not iNaturalist's annotation format (`images`, `annotations`, `categories`), or was cut off: "
            f"{type(error).__name__} {error}"
        ) from error
    if not images:
        raise ValueError(f"Annotation file {path} lists no image")
    categories = dict(annotations)
    missing = [name for number, name in images if number not in categories]
    if missing or len(annotations) != len(categories):
        raise ValueError(
            f"{path.name}: {len(missing)} images have no category (the first: {missing[:1]}) and "
            f"{len(annotations) - len(categories)} have more than one; each needs exactly one"
        )
    labels = np.fromiter((categories[number] for number, _ in images), np.int64, len(images))
    places = np.arange(1, len(images) + 1)
    listed = ImageList(path.name, root, [name for _, name in images], labels, places, entry="image")
    return listed, dict(content.get("categories", []))
