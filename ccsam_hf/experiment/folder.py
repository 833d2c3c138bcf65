"""Anyone's own images, from class folders or a data set of the Hub.

No paper gives these settings. A ResNet-50 that knows ImageNet, trained for 30 epochs at a small learning rate, is a
common start for photographs in the hundreds to tens of thousands; without the network's weights at hand,
``--pretrained false`` trains from scratch (then a larger learning rate and more epochs are in order).
"""

from __future__ import annotations

from .recipe import LOGS, SGD, Recipe

RECIPE = Recipe(
    "Your own images (--data_dir FOLDER or --dataset HUB_NAME): both stages of CC-SAM",
    {
        "benchmark": {"benchmark": "images", "model": "resnet50", "pretrained": True, "augmentation": "crop_flip"},
        "stage1": {
            **SGD,
            **LOGS,
            "output_dir": "runs/images",
            "num_train_epochs": 30,
            "per_device_train_batch_size": 64,
            "per_device_eval_batch_size": 64,
            "learning_rate": 0.01,
            "weight_decay": 5e-4,
            "lr_scheduler_type": "cosine",
            "dataloader_num_workers": 2,
        },
        "stage2": {
            **SGD,
            "num_train_epochs": 10,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
            "lr_scheduler_type": "cosine",
        },
    },
)
main = RECIPE.run
