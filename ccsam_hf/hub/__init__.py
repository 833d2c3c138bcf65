"""Published checkpoints: the run record, the card that tells it, and the way to the Hub."""

from .allowed import publishable_files
from .card import bare_record, render_card, write_card
from .cli import cards_command, push_command
from .environment import device_name, package_commit, portable_command, versions
from .errors import PushError
from .push import prepare_card, push_to_hub
from .record import CardMetadata, Citation, DataRecord, ModelRecord, RunRecord, StageRecord, names
from .stages import headline_metrics, log_summary, portable_arguments, stage_record
from .store import render_cards, store_card
from .subjects import CCSAM_CITATION, PACKAGE_CITATION, citations, data_record, model_record
from .training_record import training_record

__all__ = [
    "CCSAM_CITATION",
    "PACKAGE_CITATION",
    "CardMetadata",
    "Citation",
    "DataRecord",
    "ModelRecord",
    "PushError",
    "RunRecord",
    "StageRecord",
    "bare_record",
    "cards_command",
    "citations",
    "data_record",
    "device_name",
    "headline_metrics",
    "log_summary",
    "model_record",
    "names",
    "package_commit",
    "portable_arguments",
    "portable_command",
    "prepare_card",
    "publishable_files",
    "push_command",
    "push_to_hub",
    "render_card",
    "render_cards",
    "stage_record",
    "store_card",
    "training_record",
    "versions",
    "write_card",
]
