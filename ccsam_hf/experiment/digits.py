"""The digits experiment, where every installation finds it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from .run import main as run

SGD = {
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "lr_scheduler_type": "cosine",
    "max_grad_norm": 0.0,
    "save_strategy": "no",
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "benchmark": {"benchmark": "digits-lt", "model": "cifar_resnet20", "augmentation": "crop", "control": True},
    "stage1": {
        **SGD,
        "output_dir": "runs/digits-lt",
        "num_train_epochs": 60,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 250,
        "decay_all_parameters": True,
        "warmup_steps": 0.05,
        "logging_strategy": "epoch",
        "report_to": "none",
    },
    "stage2": {**SGD, "num_train_epochs": 20},
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train the control, stage 1 and stage 2 on the embedded digits at imbalance ratio 50."""
    return run(DEFAULTS, sys.argv[1:] if argv is None else argv)
