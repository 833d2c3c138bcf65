"""What machines read of a card: the YAML header with the model-index, and the .eval_results entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from ..shots import ShotThresholds
from .allowed import EVAL_RESULTS
from .record import HEADLINE, CardMetadata, DataRecord, RunRecord

# Title and metric identifier of each figure.
TITLES = {
    "accuracy": ("Top-1 accuracy", "accuracy"),
    "many": ("Top-1 accuracy, many-shot classes", "accuracy"),
    "medium": ("Top-1 accuracy, medium-shot classes", "accuracy"),
    "few": ("Top-1 accuracy, few-shot classes", "accuracy"),
    "balanced_accuracy": ("Balanced accuracy", "balanced_accuracy"),
    "ece": ("Expected calibration error", "ece"),
}
TAGS = ("long-tailed-recognition", "class-imbalance", "sharpness-aware-minimization", "ccsam_hf")
SPLIT = {"imbalance_ratio": "imbalance ratio", "split_seed": "split seed"}
CLASSIFICATION = {"image-classification": "Image classification", "text-classification": "Text classification"}


def card_data(record: RunRecord) -> ModelCardData:
    """The card's YAML header; its model-index has one result for each figure that was measured."""
    model, data = record.model, record.data
    results = eval_results(record)
    libraries = ["timm", "transformers"] if model.library == "timm" else ["transformers"]
    known = [data.hub_dataset] if data is not None and data.hub_dataset else []
    return ModelCardData(
        # Only the model-index needs it, and huggingface_hub drops the index without it.
        model_name=model.name if results else None,
        library_name=model.library,
        language=record.told.language,
        license=record.license,
        base_model=base_model(record.told),
        pipeline_tag=model.task,
        tags=list(dict.fromkeys([model.task, *TAGS, *libraries, *record.told.tags, *record.told.tasks])),
        datasets=list(dict.fromkeys([*known, *record.told.dataset_ids])) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        eval_results=results or None,
    )


def base_model(told: CardMetadata) -> str | None:
    """The Hub's name of the model that was fine-tuned; None where it is a folder."""
    return None if told.finetuned_locally else told.finetuned_from


def eval_results(record: RunRecord) -> list[EvalResult]:
    """One entry for each figure of the published weights, as a fraction of 1; none when never evaluated."""
    metrics, data, task = record.published_metrics or {}, record.data, record.model.task
    if data is None:
        return []
    return [
        EvalResult(
            task_type=task,
            task_name=CLASSIFICATION.get(task, task),
            dataset_type=data.hub_dataset or data.name,
            dataset_name=data.title,
            dataset_config=data.name,
            dataset_split=data.split,
            dataset_args=data.settings or None,
            metric_type=TITLES[name][1],
            metric_name=TITLES[name][0],
            metric_value=metrics[name],
        )
        for name in HEADLINE
        if metrics.get(name) is not None
    ]


def eval_result_entries(record: RunRecord) -> list[dict[str, Any]]:
    """The entries of .eval_results/*.yaml; they refer to a data set on the Hub and are empty where there is none."""
    metrics, data = record.published_metrics or {}, record.data
    if data is None or data.hub_dataset is None:
        return []
    return [
        {
            "dataset": {"id": data.hub_dataset, "task_id": f"{data.name}_{name}"},
            "value": metrics[name],
            **({"date": record.date} if record.date else {}),
            "notes": f"{TITLES[name][0]}. {evaluation_note(data)}",
        }
        for name in HEADLINE
        if metrics.get(name) is not None
    ]


def write_eval_results(folder: Path, record: RunRecord) -> Path | None:
    """Write the entries beside the card; without any, remove those of an earlier record of the same data."""
    if record.data is None:
        return None
    path = folder / EVAL_RESULTS / f"{record.data.name}.yaml"
    entries = eval_result_entries(record)
    if not entries:
        path.unlink(missing_ok=True)
        return None
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(entries, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def evaluation_note(data: DataRecord) -> str:
    """Test set, settings of the training split and shot groups, in one line."""
    parts = [data.test or f"{data.title}, {data.split} set"]
    parts += [f"{title} {data.settings[name]}" for name, title in SPLIT.items() if data.settings.get(name) is not None]
    return "; ".join([*parts, shot_groups(data)])


def shot_groups(data: DataRecord) -> str:
    """The thresholds as a sentence would have them, with the classes in each group where counts are known."""
    rule = ShotThresholds(**data.thresholds)
    above, below = ("more than", "fewer than") if rule.boundaries == "strict" else ("at least", "at most")
    sizes = dict.fromkeys(("many", "medium", "few"), "")
    if data.class_counts:
        sizes = {name: f" ({int(mask.sum())} classes)" for name, mask in rule.masks(data.class_counts).items()}
    return (
        f"many-shot: {above} {rule.many} training samples{sizes['many']}; few-shot: {below} {rule.few}{sizes['few']}; "
        f"medium-shot: the rest{sizes['medium']}"
    )
