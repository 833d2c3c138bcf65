"""Small image trees and lists in the official layouts."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SHARED = Path(__file__).parents[2] / "../shared/data"


def save_image(path: Path, seed: int = 0, size: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size + 3, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_list(path: Path, entries: list[tuple[str, int]]) -> None:
    path.write_text("".join(f"{name} {label}\n" for name, label in entries), encoding="utf-8")


def write_places(root: Path, counts: list[int], validation: bool = True, tests: int = 2) -> None:
    """Places-LT's lists and images with these training counts."""
    parts = {"train": list(counts), "test": [tests] * len(counts)}
    if validation:
        parts["val"] = [1] * len(counts)
    for part, sizes in parts.items():
        entries = []
        for label, size in enumerate(sizes):
            for i in range(size):
                folder = "val" if part == "test" else "train"
                number = i if part == "train" else 1000 + i
                entries.append((f"{folder}/place-{label}/{number:08d}.jpg", label))
                save_image(root / entries[-1][0], seed=label)
        write_list(root / f"Places_LT_{part}.txt", entries)


def write_inaturalist(root: Path, counts: list[int], tests: int = 1) -> None:
    """iNaturalist's JSON files and images with these training counts."""
    names = [f"Species {label}" for label in range(len(counts))]
    number = 0
    for part, sizes in {"train2018": counts, "val2018": [tests] * len(counts)}.items():
        images, annotations = [], []
        for label, size in enumerate(sizes):
            for _ in range(size):
                number += 1
                file = f"train_val2018/Aves/{label}/{number:032x}.jpg"
                save_image(root / file, seed=label)
                images.append(
                    {"license": 3, "file_name": file, "rights_holder": "x", "height": 9, "width": 9, "id": number}
                )
                annotations.append({"image_id": number, "category_id": label, "id": number})
        annotations.reverse()
        categories = [{"id": label, "name": name, "supercategory": "Aves"} for label, name in enumerate(names)]
        content = {"info": {"year": 2018, "version": "1"}, "images": images, "annotations": annotations}
        (root / f"{part}.json").write_text(json.dumps(content | {"categories": categories}), encoding="utf-8")
