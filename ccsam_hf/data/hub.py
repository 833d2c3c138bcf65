"""Data sets from the Hugging Face Hub, with messages that say how to go on when they cannot be had."""

from __future__ import annotations

from pathlib import Path

import datasets
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from .counts import labels_of
from .long_tail import stratified_holdout
from .records import Splits, image_and_label_columns, standard_columns

TEST_SPLITS = ("test", "validation", "val", "valid")


def origin_of(name: str) -> str:
    """Where the images came from, for records: without the place of a folder on this machine."""
    place = Path(name).expanduser()
    return f"data set in folder {place.resolve().name}" if place.is_dir() else f"Hub data set {name}"


def load_hub(name: str, by_hand: str) -> datasets.DatasetDict:
    """All splits of a Hub data set (or of a local folder that `load_dataset` reads).

    `by_hand` ends the message when there is no network, no cached copy or no right to it.
    """
    try:
        loaded = datasets.load_dataset(name)
    except (OSError, DatasetsError, HfHubHTTPError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"The data set {name!r} could not be loaded and no cached copy was found ({type(error).__name__}: "
            f"{reason}). Check the name, the network and, for a gated set, that you are logged in and have accepted "
            f"its terms; or get the data by hand: {by_hand}"
        ) from error
    if not isinstance(loaded, datasets.DatasetDict):
        raise ValueError(f"{name!r} has no named splits: it needs at least `train` and `test`")
    return loaded


def hub_splits(
    name: str,
    by_hand: str,
    image_column: str | None = None,
    label_column: str | None = None,
    holdout_fraction: float | None = None,
    split_seed: int = 0,
    default_fraction: float | None = None,
) -> Splits:
    """Train, validation and test of a Hub data set; its only evaluation split is the test set.

    Without an evaluation split `holdout_fraction` (or else `default_fraction`) of each class becomes one. Text labels
    are numbered in alphabetical order of the training split.
    """
    loaded = load_hub(name, by_hand)
    fraction = default_fraction if holdout_fraction is None else holdout_fraction
    found = [split for split in TEST_SPLITS if split in loaded]
    if "train" not in loaded or (not found and fraction is None):
        raise ValueError(
            f"{name!r} has the splits {', '.join(loaded)}: `train` and one of {', '.join(TEST_SPLITS)} are needed"
        )
    if found and holdout_fraction is not None:
        raise ValueError(f"`holdout_fraction` has no effect: {name!r} has the split {found[0]!r}. Leave it out")
    if label_column in loaded["train"].column_names:
        loaded = _numbered(loaded, str(label_column), name)
    columns = image_and_label_columns(loaded["train"], name, image_column, label_column)
    parts = {split: standard_columns(loaded[split], *columns, name) for split in ("train", *found[:2])}
    feature = parts["train"].features["label"]
    if not isinstance(feature, datasets.ClassLabel):
        raise ValueError(f"Column {columns[1]!r} of {name!r} has no class names: cast it to `datasets.ClassLabel`")
    for split, part in parts.items():
        if part.features["label"] != feature:
            raise ValueError(f"The classes of split {split!r} of {name!r} are not those of `train`: number them alike")
    if not found:
        assert fraction is not None
        kept, held = stratified_holdout(labels_of(parts["train"]), fraction, split_seed)
        train, test = parts["train"].select(kept), parts["train"].select(held)
        return Splits(train, None, test, tuple(feature.names), origin_of(name))
    validation = parts[found[1]] if len(found) > 1 else None
    return Splits(parts["train"], validation, parts[found[0]], tuple(feature.names), origin_of(name))


def _numbered(loaded: datasets.DatasetDict, label_column: str, name: str) -> datasets.DatasetDict:
    """Text classes as `ClassLabel`s, numbered alike in every split."""
    feature = loaded["train"].features[label_column]
    if not (isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")):
        return loaded
    classes = datasets.ClassLabel(names=sorted(loaded["train"].unique(label_column)))
    for split, part in loaded.items():
        unknown = set(part.unique(label_column)) - set(classes.names)
        if unknown:
            raise ValueError(
                f"Split {split!r} of {name!r} has classes that `train` lacks: {', '.join(sorted(unknown))}"
            )
    return loaded.cast_column(label_column, classes)
