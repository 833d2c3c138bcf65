"""Records of the data, the network and what to cite, from the objects that were used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..data import Benchmark
from ..losses import LOSSES
from .private import has_path
from .record import Citation, DataRecord, ModelRecord

PACKAGE_CITATION = Citation(
    role="package",
    text="ccsam_hf: class-conditional sharpness-aware minimization for timm and Hugging Face Transformers.",
)
CCSAM_CITATION = Citation(
    role="method",
    text=(
        "Zhou, Z., Li, L., Zhao, P., Heng, P.-A. and Gong, W. (2023). Class-Conditional Sharpness-Aware Minimization "
        "for Deep Long-Tailed Recognition. CVPR."
    ),
    bibtex=(
        "@inproceedings{zhou2023ccsam,\n"
        "  title = {Class-Conditional Sharpness-Aware Minimization for Deep Long-Tailed Recognition},\n"
        "  author = {Zhou, Zhipeng and Li, Lanqing and Zhao, Peilin and Heng, Pheng-Ann and Gong, Wei},\n"
        "  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},\n"
        "  year = {2023}\n"
        "}"
    ),
)


def data_record(data: Benchmark, thresholds: Mapping[str, Any] | None = None, *, holdout: bool = False) -> DataRecord:
    """The record of a loaded benchmark. thresholds: `ShotThresholds.describe()`, the benchmark's own by default."""
    record = data.record
    part = data.validation if holdout else data.test
    kind = "images held out of the training pool" if holdout else "the test set"
    return DataRecord(
        name=record.name,
        title=record.title,
        source=record.source,
        licence=record.licence,
        hub_dataset=record.hub_dataset,
        settings={name: value for name, value in data.settings.items() if not has_path(str(value))},
        class_counts=tuple(int(count) for count in data.class_counts),
        label_names=tuple(data.label_names),
        thresholds=dict(thresholds or record.thresholds.describe()),
        split="validation" if holdout else "test",
        test=None if part is None else f"{kind} of {record.title}: {len(part):,} images",
    )


def citations(
    *, data: Benchmark | None = None, losses: Sequence[str] = (), methods: Sequence[Citation] = (CCSAM_CITATION,)
) -> tuple[Citation, ...]:
    """Methods, the data's own citation, the references of the named losses, and the package, each once."""
    found = [*methods]
    if data is not None and data.record.citation:
        found.append(Citation("data", data.record.citation))
    found += [Citation("loss", LOSSES[name].reference) for name in losses if name != "cross_entropy"]
    return tuple(dict.fromkeys([*found, PACKAGE_CITATION]))


def model_record(folder: str | Path, name: str | None = None, *, notes: Sequence[str] = ()) -> ModelRecord:
    """What a saved model folder tells about its network. ValueError: no config.json in it."""
    place = Path(folder)
    config = read_config(place)
    architecture = config.get("architecture") or ", ".join(config.get("architectures") or ()) or "unknown"
    head = config.get("classifier_head")
    is_timm = "architecture" in config and head is None
    shown = ("input_size", "mean", "std", "crop_pct", "interpolation")
    settings = {key: config["pretrained_cfg"][key] for key in shown if key in config.get("pretrained_cfg", {})}
    is_text = any("SequenceClassification" in entry for entry in config.get("architectures") or ())
    return ModelRecord(
        name=name or place.resolve().name,
        architecture=architecture,
        parameters=count_parameters(place),
        library="timm" if is_timm else "transformers",
        task="text-classification" if is_text else "image-classification",
        preprocessing=settings,
        training_prior=config.get("training_prior") if isinstance(config.get("training_prior"), str) else None,
        classifier=None if head is None else head["kind"],
        notes=tuple(notes),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json: name the folder that save_pretrained wrote.")
    return json.loads(path.read_text(encoding="utf-8"))


def data_of_config(config: Mapping[str, Any]) -> DataRecord | None:
    """Class counts and label names of a checkpoint about whose data nothing else is known."""
    counts, labels = config.get("class_counts") or (), config.get("id2label") or {}
    names = [labels[key] for key in sorted(labels, key=int)] if labels else list(config.get("label_names") or ())
    if not counts and not names:
        return None
    return DataRecord(
        "unknown", "data that this record does not name", class_counts=tuple(counts), label_names=tuple(names)
    )


def count_parameters(folder: Path) -> int | None:
    """Numbers in the folder's safetensors files of weights, buffers included; None when there are none."""
    files = sorted(folder.glob("model*.safetensors"))
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as stored:
            total += sum(torch.Size(stored.get_slice(name).get_shape()).numel() for name in stored.keys())  # noqa: SIM118
    return total if files else None
