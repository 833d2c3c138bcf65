"""The digits experiment, where every installation finds it; recipes/digits_lt.py compares it with plain training."""

from __future__ import annotations

from .recipe import SGD, Recipe

# A network and a schedule that fit the 353 training images on any processor, in about 25 seconds.
RECIPE = Recipe(
    "Digits-LT: both stages of CC-SAM and a control on the embedded handwritten digits, imbalance ratio 50",
    {
        "benchmark": {"benchmark": "digits-lt", "model": "cifar_resnet8", "augmentation": "crop", "control": True},
        "stage1": {
            **SGD,
            "output_dir": "runs/digits-lt",
            "num_train_epochs": 60,
            "per_device_train_batch_size": 32,
            "per_device_eval_batch_size": 250,
            "learning_rate": 0.05,
            "weight_decay": 5e-4,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.05,
            "logging_strategy": "epoch",
            "save_strategy": "no",
            "report_to": "none",
        },
        "stage2": {
            **SGD,
            "num_train_epochs": 10,
            "learning_rate": 0.05,
            "weight_decay": 5e-4,
            "lr_scheduler_type": "cosine",
        },
    },
)
main = RECIPE.run
