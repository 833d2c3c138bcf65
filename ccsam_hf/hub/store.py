"""`model_cards/`: the cards of trained benchmark checkpoints, kept beside the code without their weights."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from .card import CARD_FILE, METRICS_FILE, write_card
from .record import RECORD_FILE, DataRecord, RunRecord
from .sections import STAGES, table

INDEX_TEXT = """\
# Model cards

Cards of checkpoints that were trained with this package. Each folder holds the run record (`run.json`), the figures \
behind it (`metrics.json`) and the card rendered from them; `python -m ccsam_hf cards model_cards` renders all again.
"""


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
