"""The model card: README.md from a run record and the template that the package ships."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ..models import add_remote_code
from .figure import draw_long_tail
from .metadata import card_data, write_eval_results
from .record import RunRecord
from .sections import (
    FIGURES,
    citations_section,
    data_section,
    environment_section,
    hyperparameters_section,
    limits_section,
    procedure_section,
    results_section,
    summary_section,
)
from .subjects import data_of_config, model_record, read_config
from .usage import usage_section

CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"


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


def bare_record(folder: str | Path, name: str | None = None) -> RunRecord:
    """What can be told of a saved model about whose training and evaluation nothing is known."""
    return RunRecord(model_record(folder, name), data_of_config(read_config(Path(folder))))


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
