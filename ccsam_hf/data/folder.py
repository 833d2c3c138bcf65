"""Anyone's own images: class folders on disk, or a data set of the Hub."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import datasets
import numpy as np

from .benchmarks import HOLDOUT_FRACTION, Benchmark, assembled, held_out
from .hub import TEST_SPLITS, hub_splits
from .image_files import IMAGE_SUFFIXES, contents, images_below, left_out_text
from .image_lists import ImageList, as_dataset, without_broken
from .long_tail import stratified_holdout
from .records import BenchmarkRecord, Splits

DEFAULT_TEST_FRACTION = 0.2


def load_images(
    *,
    data_dir: str | Path | None = None,
    hub_dataset: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    holdout_fraction: float | None = None,
    split_seed: int = 0,
    holdout: bool = False,
    skip_broken_images: bool = False,
) -> Benchmark:
    """Images of one's own as training and test sets with class counts.

    Args:
        data_dir: folder with `train/CLASS/...` and `val/CLASS/...` (or valid, validation, test), or with
            `CLASS/...` alone: then a stratified hold-out becomes the test set, and one image of each class at
            least stays in training.
        hub_dataset: name of a Hub data set, in place of `data_dir`.
        image_column, label_column: columns of the Hub data set; default: its only image and its only class column.
        holdout_fraction: share of each class held out as test set where there is none (default 0.2).
        split_seed: of the hold-outs.
        holdout: move a tenth of each class from training to `.validation`, to tune on.
        skip_broken_images: drop image files that cannot be decoded, with a warning that counts them (decodes all).

    Raises:
        ValueError: both sources or none; no class folders; a class without a training image; broken images.
    """
    if (data_dir is None) == (hub_dataset is None):
        raise ValueError("Give either `data_dir` (a folder of images) or `hub_dataset` (a data set of the Hub)")
    if hub_dataset is not None:
        if skip_broken_images:
            raise ValueError("`skip_broken_images` has no effect on a Hub data set: leave it out")
        splits = _from_hub(hub_dataset, image_column, label_column, holdout_fraction, split_seed)
        name = hub_dataset.rstrip("/").split("/")[-1]
    else:
        assert data_dir is not None
        if image_column is not None or label_column is not None:
            raise ValueError("`image_column` and `label_column` have no effect on a folder: leave them out")
        folder = Path(data_dir).expanduser()
        splits = _from_folder(folder, holdout_fraction, split_seed, skip_broken_images)
        name = folder.resolve().name
    if holdout:
        splits = held_out(splits, HOLDOUT_FRACTION, split_seed)
    settings = {"holdout": holdout, "split_seed": split_seed, "holdout_fraction": holdout_fraction}
    published = hub_dataset is not None and not Path(hub_dataset).expanduser().is_dir()
    return assembled(_record(name, splits.origin, hub_dataset if published else None), splits, settings)


def _record(name: str, origin: str, hub_dataset: str | None) -> BenchmarkRecord:
    """A record of data that no record can be compared with."""
    return BenchmarkRecord(
        name=name,
        title=name,
        family="images",
        source=origin,
        hub_dataset=hub_dataset,
        licence="As the owner of the images says.",
        citation="",
        num_classes=None,
        test_size=None,
        largest_class=None,
        smallest_class=None,
    )


def _from_hub(
    name: str, image_column: str | None, label_column: str | None, holdout_fraction: float | None, split_seed: int
) -> Splits:
    by_hand = "download its images into class folders and give them as `data_dir`"
    return hub_splits(
        name, by_hand, image_column, label_column, holdout_fraction, split_seed, default_fraction=DEFAULT_TEST_FRACTION
    )


def _from_folder(folder: Path, holdout_fraction: float | None, split_seed: int, skip_broken: bool) -> Splits:
    train_root = folder / "train" if (folder / "train").is_dir() else folder
    others = [folder / name for name in TEST_SPLITS if train_root != folder and (folder / name).is_dir()]
    if others and holdout_fraction is not None:
        raise ValueError(f"`holdout_fraction` has no effect: {folder} has a folder {others[0].name!r}. Leave it out")
    names = class_folders(train_root)
    listed = [list_folder(part, names) for part in (train_root, *others[:2])]
    lists = [images for images, _ in listed]
    left_out = left_out_text(sum((counts for _, counts in listed), Counter()))
    kept = [without_broken(images) if skip_broken else images for images in lists]
    dropped = sum(map(len, lists)) - sum(map(len, kept))
    parts = [as_dataset(images, names) for images in kept]
    origin = f"image folder {folder.resolve().name}"
    if not others:
        fraction = DEFAULT_TEST_FRACTION if holdout_fraction is None else holdout_fraction
        stay, held = stratified_holdout(kept[0].labels, fraction, split_seed)
        return Splits(parts[0].select(stay), None, parts[0].select(held), tuple(names), origin, dropped, left_out)
    validation: datasets.Dataset | None = parts[2] if len(parts) > 2 else None
    return Splits(parts[0], validation, parts[1], tuple(names), origin, dropped, left_out)


def class_folders(root: Path, at_least: int = 2) -> list[str]:
    """Names of the class folders below `root`, sorted: their order numbers the classes."""
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}; {contents(root.parent)}")
    try:
        names = sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
    except PermissionError as error:
        raise ValueError(f"No permission to list {root}: change its mode") from error
    if len(names) < at_least:
        raise ValueError(
            f"{root} has {len(names)} class folders, at least {at_least} are needed (one folder of images for "
            f"each class, named like it, or `train` and `val` folders of them); {contents(root)}"
        )
    return names


def list_folder(root: Path, names: list[str]) -> tuple[ImageList, Counter[str]]:
    """(all images below `root/CLASS`, count of the other files by extension), classes and files sorted.

    Raises:
        ValueError: a class that is not among `names`; a class without an image.
    """
    paths, labels = [], []
    left_out: Counter[str] = Counter()
    for name in class_folders(root, at_least=1):
        files, others = images_below(root / name)
        left_out += others
        if name not in names:
            raise ValueError(
                f"Folder {root / name} is a class that training lacks (it has {', '.join(names[:8])}): add "
                f"training images of {name!r} or take the folder away"
            )
        if not files:
            raise ValueError(
                f"Class {name!r} has no image: {root / name} holds no {', '.join(sorted(IMAGE_SUFFIXES))}"
                + (f", but {left_out_text(others)}" if others else "")
            )
        paths += [os.path.join(name, file) for file in files]
        labels += [names.index(name)] * len(files)
    places = np.arange(1, len(paths) + 1)
    return ImageList(f"folder {root.name}", root, paths, np.array(labels, np.int64), places, entry="file"), left_out
