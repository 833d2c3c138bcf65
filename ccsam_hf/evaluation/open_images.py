"""Images of unknown classes, from wherever they lie."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
from datasets.exceptions import DatasetsError

from ccsam_hf.data import BENCHMARKS, load_benchmark
from ccsam_hf.data.image_lists import as_dataset, read_list, require_files


def load_open_images(source: str, data_dir: str | Path | None = None, split: str | None = None) -> datasets.Dataset:
    """Images of a data set whose classes the checkpoint does not know, column `image`; labels are dropped.

    Args:
        source: a benchmark's name (its test images: "cifar100-lt" for a CIFAR-10 checkpoint); a list file such as
            `ImageNet_LT_open.txt` or `Places_LT_open.txt` (one `path label` a line); a folder of images, or of what
            `datasets.load_dataset` reads; or the id of a Hub data set.
        data_dir: folder that a list's paths start from, or of a benchmark's files.
        split: of a Hub data set or folder; by default "test", or the only one.

    Raises:
        ValueError: nothing of that name, or no image column; the message says what to do.
    """
    if split is not None and (source in BENCHMARKS or source.endswith(".txt")):
        raise ValueError(f"The open split {split!r} has no effect on a benchmark or list; leave it out.")
    if source in BENCHMARKS:
        images = load_benchmark(source, data_dir=data_dir).test
    elif source.endswith(".txt"):
        images = _listed(Path(source), data_dir)
    else:
        if data_dir is not None:
            raise ValueError("The open images' data_dir has no effect on a folder or Hub data set; leave it out.")
        images = _loaded(source, split)
    return images.select_columns([_image_column(images, source)]).rename_columns(_renamed(images, source))


def _listed(path: Path, data_dir: str | Path | None) -> datasets.Dataset:
    images = read_list(path, Path(data_dir) if data_dir is not None else path.parent)
    require_files(images)
    # The lists number their open classes as they like; all of them are "open" here.
    images.labels[:] = np.zeros_like(images.labels)
    return as_dataset(images, ["open"])


def _loaded(source: str, split: str | None) -> datasets.Dataset:
    try:
        found = datasets.load_dataset(source)
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"The open images {source!r} are neither a benchmark ({', '.join(BENCHMARKS)}), nor a list file (.txt), "
            f"nor a folder or Hub data set that can be loaded: {error}"
        ) from error
    wanted = split or (str(next(iter(found))) if len(found) == 1 else "test")
    if wanted not in found:
        raise ValueError(
            f"{source!r} has the splits {', '.join(map(str, found))} and no {wanted!r}; name one as the open split "
            "(--open_split)."
        )
    return found[wanted]


def _image_column(images: datasets.Dataset, source: str) -> str:
    columns: Sequence[str] = [name for name, kind in images.features.items() if isinstance(kind, datasets.Image)]
    if len(columns) != 1:
        raise ValueError(
            f"{source!r} has {len(columns)} image columns among {', '.join(images.column_names)}, not one."
        )
    return columns[0]


def _renamed(images: datasets.Dataset, source: str) -> dict[str, str]:
    column = _image_column(images, source)
    return {} if column == "image" else {column: "image"}
