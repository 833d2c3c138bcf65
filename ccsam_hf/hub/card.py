"""Writes model cards: README.md with its YAML header, run.json, figures, and the folder of stored cards."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import yaml
from huggingface_hub import EvalResult, ModelCardData
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..models import add_remote_code
from ..shots import ShotThresholds
from .card_text import (
    CLASSIFICATION,
    FIGURES,
    STAGES,
    citations_section,
    data_section,
    environment_section,
    evaluation_note,
    hyperparameters_section,
    limits_section,
    procedure_section,
    results_section,
    summary_section,
    table,
    usage_section,
)
from .collect import data_of_config, read_config
from .publishable import EVAL_RESULTS
from .record import (
    CARD_FILE,
    HEADLINE,
    LONG_TAIL_FILE,
    METRICS_FILE,
    RECORD_FILE,
    CardMetadata,
    DataRecord,
    RunRecord,
)

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
SHADES = {"many": "0.25", "medium": "0.6", "few": "0.85"}
INDEX_TEXT = """\
# Model cards

Cards of checkpoints that were trained with this package. Each folder holds the run record (`run.json`), the figures \
behind it (`metrics.json`) and the card rendered from them; `python -m ccsam_hf cards model_cards` renders all again.
"""


def render_card(record: RunRecord, figures: Sequence[str] = ()) -> str:
    """The whole card, YAML header included. figures: names (without ending) of the PNGs in figures/ to show."""
    template = Template(files("ccsam_hf.hub").joinpath("templates/model_card.md").read_text(encoding="utf-8"))
    body = template.substitute(
        title=record.model.name,
        summary=summary_section(record),
        usage=usage_section(record),
        results=results_section(record, figures),
        data=data_section(record),
        procedure=procedure_section(record),
        hyperparameters=hyperparameters_section(record),
        environment=environment_section(record),
        limits=limits_section(record),
        citations=citations_section(record),
    )
    return f"---\n{card_data(record).to_yaml()}\n---\n\n{body}"


def write_card(folder: str | Path, record: RunRecord) -> Path:
    """Write README.md, run.json, metrics.json, .eval_results/ and the drawn long tail into a model folder.

    Where the folder holds a model, an architecture that timm lacks gets its code beside it, and a record that
    contradicts the model's config.json (class counts, label names) is refused by a ValueError. An evaluation's
    metrics.json keeps its content; the stages are added to it.
    """
    place = Path(folder)
    if (place / "config.json").is_file():
        _check_config(place, record)
        code = add_remote_code(place)
        if code is not None:
            record = replace(record, model=replace(record.model, remote_code=code.name))
    record.save(place)
    _write_metrics(place, record)
    if record.data is not None and record.data.class_counts:
        draw_long_tail(record.data, place)
    write_eval_results(place, record)
    card = place / CARD_FILE
    card.write_text(render_card(record, shown_figures(place)), encoding="utf-8")
    return card


def shown_figures(folder: Path) -> list[str]:
    """Names of the evaluation's figures that a folder holds."""
    return [name for name in FIGURES if (folder / "figures" / f"{name}.png").is_file()]


def _write_metrics(folder: Path, record: RunRecord) -> None:
    """metrics.json: the stages' figures, beside what an evaluation wrote there."""
    path = folder / METRICS_FILE
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    published = record.published_stage
    content["published"] = None if published is None else published.role
    content["stages"] = {stage.role: stage.metrics for stage in record.stages}
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _check_config(folder: Path, record: RunRecord) -> None:
    """A record of another model would make the card lie."""
    found = data_of_config(read_config(folder))
    if found is None or record.data is None:
        return
    for name in ("class_counts", "label_names"):
        theirs, ours = getattr(found, name), getattr(record.data, name)
        if theirs and ours and tuple(theirs) != tuple(ours):
            raise ValueError(
                f"The record's {name} ({len(ours)}) are not those of {folder / 'config.json'} ({len(theirs)}): "
                "write the card with the record of this model."
            )


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
        language=record.card_metadata.language,
        license=record.license,
        base_model=base_model(record.card_metadata),
        pipeline_tag=model.task,
        tags=list(
            dict.fromkeys([model.task, *TAGS, *libraries, *record.card_metadata.tags, *record.card_metadata.tasks])
        ),
        datasets=list(dict.fromkeys([*known, *record.card_metadata.dataset_ids])) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        eval_results=results or None,
    )


def base_model(given: CardMetadata) -> str | None:
    """The Hub's name of the model that was fine-tuned; None where it is a folder."""
    return None if given.finetuned_locally else given.finetuned_from


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


def draw_long_tail(data: DataRecord, folder: Path) -> Path:
    """Training samples of each class, most frequent first, shot groups in different shades."""
    counts = np.array(data.class_counts)
    order = np.argsort(-counts, kind="stable")
    masks = ShotThresholds(**data.thresholds).masks(data.class_counts)
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 1.0 if len(counts) > 50 else 0.85
    for name, shade in SHADES.items():
        ranks = np.flatnonzero(masks[name].numpy()[order])
        if len(ranks):
            label = f"{name}-shot ({len(ranks)} classes)"
            line = 0.6 if width < 1 else 0.0
            axes.bar(
                ranks + 1, counts[order][ranks], width, color=shade, label=label, edgecolor="black", linewidth=line
            )
    axes.set(xlabel="classes, most frequent first", ylabel="training samples", yscale="log", xlim=(0, len(counts) + 1))
    axes.legend()
    path = folder / LONG_TAIL_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the metadata the file does not name the software that drew it, and stays the same under newer ones.
    figure.savefig(path, dpi=150, metadata={"Software": None})
    return path


def store_card(model_folder: str | Path, cards_folder: str | Path) -> Path:
    """Copy what a card is made of from a model folder to `cards_folder`/NAME and render it; returns the card.

    NAME is the model's, in letters that need no quoting in a link, with the imbalance ratio, the published stage's
    method and the seed, so that the runs of one benchmark lie beside each other. The card of the same run is replaced.

    ValueError: the model folder has no run record.
    """
    source = Path(model_folder)
    record = RunRecord.load(source)
    target = Path(cards_folder) / card_name(record)
    (target / "figures").mkdir(parents=True, exist_ok=True)
    for path in [source / METRICS_FILE, *(source / "figures").glob("*.png")]:
        if path.is_file():
            shutil.copyfile(path, target / path.relative_to(source))
    write_card(target, record)
    render_cards(cards_folder)
    return target / CARD_FILE


def card_name(record: RunRecord) -> str:
    """Folder of a run's card: lower case, words joined by hyphens."""
    stage, ratio = record.published_stage, None if record.data is None else record.data.settings.get("imbalance_ratio")
    words = [
        record.model.name,
        "" if ratio is None else f"ratio {ratio:g}",
        "" if stage is None else f"{stage.role} {stage.method}",
        "" if record.seed is None else f"seed {record.seed}",
    ]
    return re.sub(r"[^a-z0-9._]+", "-", " ".join(words).lower()).strip("-.")


def render_cards(cards_folder: str | Path) -> list[Path]:
    """Render every card of `cards_folder`/NAME/run.json again, and the README.md that lists them.

    ValueError: the folder does not exist, or a record cannot be read.
    """
    folder = Path(cards_folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: name the one that holds the cards.")
    records = {path.parent: RunRecord.load(path.parent) for path in sorted(folder.glob(f"*/{RECORD_FILE}"))}
    cards = [write_card(place, record) for place, record in records.items()]
    index = folder / CARD_FILE
    index.write_text(render_index(records), encoding="utf-8")
    return [*cards, index]


def render_index(records: dict[Path, RunRecord]) -> str:
    """The list of cards with the headline figures of each."""
    if not records:
        return f"{INDEX_TEXT}\nNo checkpoint has been trained and recorded yet.\n"
    rows = [
        [f"[{record.model.name}]({place.name}/{CARD_FILE})", *_figures(record)] for place, record in records.items()
    ]
    return f"{INDEX_TEXT}\n{table(['Checkpoint', 'Data', 'Weights after', 'Overall', 'Few'], rows)}\n"


def _data(data: DataRecord) -> str:
    ratio = data.settings.get("imbalance_ratio")
    return data.title if ratio is None else f"{data.title}, imbalance ratio {ratio:g}"


def _figures(record: RunRecord) -> list[str]:
    stage, metrics = record.published_stage, record.published_metrics or {}
    shown = [metrics.get(name) for name in ("accuracy", "few")]
    return [
        "" if record.data is None else _data(record.data),
        "" if stage is None else f"{STAGES[stage.role].lower()}: {stage.method}",
        *("not evaluated" if value is None else f"{100 * value:.2f} %" for value in shown),
    ]
