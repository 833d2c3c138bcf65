"""CIFAR-10-LT and CIFAR-100-LT with ResNet-32.

The paper prints batch 64 and SGD 0.9. As released (zzpustc/CC-SAM configs/Cifar10.json, Cifar100.json, both of
imbalance ratio 200): 200 + 30 epochs, lr 0.1, 5 epochs of warm-up, x0.1 at epochs 160 and 180, weight decay 2e-4. Stage
2's cosine from lr 0.1 is the field's practice (Kang et al., ICLR 2020).
"""

from __future__ import annotations

from .recipe import LOGS, SGD, Recipe

RECIPE = Recipe(
    "CIFAR-10-LT and CIFAR-100-LT: both stages of CC-SAM with ResNet-32",
    {
        "benchmark": {"benchmark": "cifar100-lt", "model": "cifar_resnet32", "augmentation": "crop_flip"},
        "stage1": {
            **SGD,
            **LOGS,
            "output_dir": "runs/cifar-lt",
            "num_train_epochs": 200,
            "per_device_train_batch_size": 64,
            "per_device_eval_batch_size": 500,
            "learning_rate": 0.1,
            "weight_decay": 2e-4,
            "warmup_steps": 0.025,
            "lr_milestones": [160, 180],
        },
        "stage2": {
            **SGD,
            "num_train_epochs": 30,
            "learning_rate": 0.1,
            "weight_decay": 2e-4,
            "lr_scheduler_type": "cosine",
        },
    },
)
main = RECIPE.run
