"""CIFAR-10 and CIFAR-100 as balanced pools (or pre-drawn ones) from parquet files or the Hub."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from ccsam_hf.data.counts import class_names
from ccsam_hf.data.listing import contents
from ccsam_hf.data.records import BenchmarkRecord
from ccsam_hf.data.sources import Splits, standard_columns

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
