"""How the images of the package's own benchmarks are read: digits, CIFAR files, and official image lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from timm.data import ImageNetInfo

from .counts import class_names
from .hub import load_hub, origin_of
from .image_files import contents
from .image_lists import (
    ImageList,
    as_dataset,
    check_disjoint,
    check_list,
    read_inaturalist,
    read_list,
    require_files,
    without_broken,
)
from .records import BenchmarkRecord, Splits, distinct_names, standard_columns

TEST_IMAGES_PER_CLASS = 50
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digit_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [1797, 8, 8] with values 0..16 as in the source, and labels int64 [1797]."""
    with files("ccsam_hf.data").joinpath("assets/digits.npz").open("rb") as file, np.load(file) as stored:
        return stored["images"], stored["labels"].astype(np.int64)


def digit_test_positions(labels: np.ndarray) -> np.ndarray:
    """The fixed balanced test set: 50 images of each digit, spread evenly over the source's order, int64 [500]."""
    chosen = []
    for digit in range(10):
        positions = np.flatnonzero(labels == digit)
        chosen.append(positions[np.linspace(0, len(positions) - 1, TEST_IMAGES_PER_CLASS).round().astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def load_digits() -> tuple[datasets.Dataset, datasets.Dataset]:
    """(training pool of 1,297 images, test set of 500) with columns `image` (RGB, 0..255) and `label`."""
    images, labels = digit_arrays()
    # 0..16 to 0..255, so that 8-bit readers (PIL, the image processor of a published model) see the full range.
    pixels = (images.astype(np.float64) * 255 / 16).round().astype(np.uint8)
    rows = {"image": [Image.fromarray(p).convert("RGB") for p in pixels], "label": labels}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(DIGIT_NAMES))})
    whole = datasets.Dataset.from_dict(rows, features=features)
    test = digit_test_positions(labels)
    return whole.select(np.setdiff1d(np.arange(len(labels)), test)), whole.select(test)


# Where a copy of the Hub's repository, or a plain download, keeps its parquet files.
_SUBFOLDERS = ("", "data", "{name}", "{name}_lt", "plain_text")


def cifar_from_folder(record: BenchmarkRecord, data_dir: Path) -> Splits:
    """`train*.parquet` and `test*.parquet` below `data_dir`, columns as in the Hub's data set."""
    name = record.name.removesuffix("-lt")
    folders = [data_dir / sub.format(name=name) for sub in _SUBFOLDERS]
    folder = next((f for f in folders if list(f.glob("train*.parquet"))), None)
    if folder is None:
        raise ValueError(
            f"No train*.parquet for {record.name} in {', '.join(map(str, folders))}; {contents(data_dir)}. "
            f"Download the parquet files of the Hub's {record.hub_dataset} there"
        )
    train, test = (_read(record, folder, split) for split in ("train", "test"))
    names = class_names(train) or [str(c) for c in range(record.num_classes or 0)]
    return Splits(train, None, test, tuple(names), f"parquet files {folder.name}/{_one_set(folder, 'train')[0].name}")


def _read(record: BenchmarkRecord, folder: Path, split: str) -> datasets.Dataset:
    files = _one_set(folder, split)
    try:
        table = pa.concat_tables([pq.read_table(file) for file in files])
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{files[0]} cannot be read as parquet ({error}): download it again") from error
    dataset = standard_columns(datasets.Dataset(table), record.image_column, record.label_column, str(files[0]))
    return dataset.cast_column("image", datasets.Image())


def _one_set(folder: Path, split: str) -> list[Path]:
    """The shards of one split; ValueError when there is none, or two different sets of them."""
    files = sorted(folder.glob(f"{split}*.parquet"))
    shards = [file for file in files if file.stem.startswith(f"{split}-") and "-of-" in file.stem]
    if not files:
        raise ValueError(f"No {split}*.parquet in {folder}; {contents(folder)}")
    if len(files) > 1 and len(shards) != len(files):
        raise ValueError(
            f"{folder} holds several {split} sets ({', '.join(file.name for file in files)}): keep the one to be used"
        )
    return files


@dataclass(frozen=True)
class Lists:
    """The image lists of one benchmark, read but not yet compared with the images."""

    train: ImageList
    validation: ImageList | None
    test: ImageList
    label_names: tuple[str, ...]

    def roles(self) -> dict[str, ImageList]:
        listed = {"train": self.train, "validation": self.validation, "test": self.test}
        return {role: images for role, images in listed.items() if images is not None}


def read_lists(record: BenchmarkRecord, root: Path, list_dir: str | None, subset: bool) -> Lists:
    """The lists of `record`, from `list_dir` (a folder or URL; default: the image root), checked in themselves."""
    folder = str(root) if list_dir is None else list_dir
    if record.family == "inaturalist":
        lists = _inaturalist_lists(record, root, folder, subset)
    else:
        lists = _text_lists(record, root, folder, subset)
    for images in lists.roles().values():
        check_list(images, len(lists.label_names))
    for role in ("validation", "test"):
        if role in lists.roles():
            check_disjoint(lists.train, lists.roles()[role])
    return lists


def splits_from_files(lists: Lists, skip_broken_images: bool) -> Splits:
    """Data sets over the listed files; missing ones stop here, or broken ones are dropped."""
    kept = lists.roles()
    if skip_broken_images:
        kept = {role: without_broken(images) for role, images in kept.items()}
    else:
        for images in kept.values():
            require_files(images)
    parts = {role: as_dataset(images, lists.label_names) for role, images in kept.items()}
    dropped = sum(len(images) - len(kept[role]) for role, images in lists.roles().items())
    origin = f"{lists.train.source} over local images"
    return Splits(parts["train"], parts.get("validation"), parts["test"], lists.label_names, origin, dropped)


def splits_from_hub(lists: Lists, name: str, image_column: str) -> Splits:
    """Data sets over the images of a Hub data set, found by the file names that it keeps."""
    loaded = load_hub(name, "put the images below `data_dir` in the official layout")
    whole = datasets.concatenate_datasets([part.select_columns(image_column) for part in loaded.values()])
    whole = whole.rename_columns({image_column: "image"})
    stored = _stored_paths(whole)
    labels = np.full(len(whole), -1, np.int64)
    rows = {}
    for role, images in lists.roles().items():
        rows[role] = _matching_rows(images, stored, name)
        labels[rows[role]] = images.labels
    # Labelled before it is selected: adding a column to a selection would copy the images.
    whole = whole.add_column("label", labels)
    whole = whole.cast_column("label", datasets.ClassLabel(names=list(lists.label_names)))
    chosen = {role: whole.select(positions) for role, positions in rows.items()}
    origin = f"{lists.train.source} over {origin_of(name)}"
    return Splits(chosen["train"], chosen.get("validation"), chosen["test"], lists.label_names, origin)


def _text_lists(record: BenchmarkRecord, root: Path, folder: str, subset: bool) -> Lists:
    listed = {
        role: read_list(_local(folder, file), root) for role, file in record.files.items() if role != "validation"
    }
    validation = None
    if "validation" in record.files and (_is_url(folder) or (Path(folder) / record.files["validation"]).exists()):
        validation = read_list(_local(folder, record.files["validation"]), root)
    count = int(listed["train"].labels.max()) + 1 if subset or record.num_classes is None else record.num_classes
    return Lists(listed["train"], validation, listed["test"], _folder_names(listed["train"], count))


def _inaturalist_lists(record: BenchmarkRecord, root: Path, folder: str, subset: bool) -> Lists:
    train, categories = read_inaturalist(_local(folder, record.files["train"]), root)
    test, _ = read_inaturalist(_local(folder, record.files["test"]), root)
    count = int(train.labels.max()) + 1 if subset or record.num_classes is None else record.num_classes
    keys = [str(c) for c in range(count)]
    return Lists(train, None, test, distinct_names([categories.get(c, str(c)) for c in range(count)], keys))


def _folder_names(train: ImageList, count: int) -> tuple[str, ...]:
    """Names by the folder of each class; ImageNet's folders are translated; numbers where folders are shared."""
    keys = [str(c) for c in range(count)]
    for path, label in zip(reversed(train.paths), reversed(train.labels.tolist()), strict=True):
        if 0 <= label < count:
            keys[label] = Path(path).parent.name
    if len(set(keys)) < count:
        return tuple(str(c) for c in range(count))
    if all(re.fullmatch(r"n\d{8}", key) for key in keys):
        info = ImageNetInfo()
        return distinct_names([info.label_name_to_description(key) for key in keys], keys)
    return tuple(keys)


def _is_url(folder: str) -> bool:
    return folder.startswith(("http://", "https://"))


def _local(folder: str, file: str) -> Path:
    """The list as a local file: downloaded (once) where `folder` is a URL."""
    if not _is_url(folder):
        return Path(folder) / file
    url = f"{folder.rstrip('/')}/{file}"
    try:
        return Path(datasets.DownloadManager().download(url))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The list {url} could not be downloaded and is not in the cache ({type(error).__name__}): check the "
            f"network, or put {file} into a folder and give that as `list_dir`"
        ) from error


def _stored_paths(images: datasets.Dataset) -> list[str]:
    """The file name that a data set of images keeps with the bytes ('' where there is none)."""
    chunks = images.data.column("image").chunks
    names = pa.chunked_array([pc.struct_field(chunk, "path") for chunk in chunks], pa.string()).to_pylist()
    return [name or "" for name in names]


def _tail(depth: int) -> Callable[[str], str]:
    """The last `depth` parts of a path, without the class that the Hub's ImageNet appends to its file names."""
    return lambda path: re.sub(r"_n\d{8}(?=\.\w+$)", "", "/".join(path.replace("\\", "/").split("/")[-depth:]))


def _matching_rows(images: ImageList, stored: list[str], name: str) -> np.ndarray:
    """Row of each listed image, by the shortest end of its path that is unique in the list."""
    depth = next(d for d in range(1, 20) if len(set(map(_tail(d), images.paths))) == len(images))
    tail = _tail(depth)
    row_of = {tail(path): row for row, path in enumerate(stored)}
    missing = [position for position, path in enumerate(images.paths) if tail(path) not in row_of]
    if missing:
        example = f"; its files are named like {stored[0]!r}" if stored and stored[0] else "; it keeps no file names"
        raise ValueError(
            f"{len(missing)} of {len(images)} images of {images.source} are not in {name!r}, the first is "
            f"{images.where(missing[0])}{example}"
        )
    return np.array([row_of[tail(path)] for path in images.paths], np.int64)
