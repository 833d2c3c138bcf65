"""Published checkpoints: the run record, the model card rendered from it, and the push to the Hub."""

from .card import render_card, render_cards, store_card, write_card
from .collect import (
    CCSAM_CITATION,
    PACKAGE_CITATION,
    bare_record,
    citations,
    data_record,
    device_name,
    headline_metrics,
    log_summary,
    model_record,
    package_commit,
    portable_arguments,
    portable_command,
    stage_record,
    training_record,
    versions,
)
from .publishable import publishable_files
from .push import PushError, cards_command, prepare_card, push_command, push_to_hub
from .record import CardMetadata, Citation, DataRecord, ModelRecord, RunRecord, StageRecord

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
