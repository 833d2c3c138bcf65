"""ImageNet-LT with ResNeXt-50.

The paper gives network, batch 256 and SGD 0.9. The field's practice gives the rest: 90 epochs, lr 0.1 for 256 images,
cosine, weight decay 5e-4, random resized crop, flip and colour jitter, 10 epochs of stage 2 (Kang et al., ICLR 2020;
facebookresearch/classifier-balancing config/ImageNet_LT: feat_uniform.yaml and cls_crt.yaml have lr 0.2 for 512).
"""

from __future__ import annotations

from .recipe import LOGS, SGD, Recipe

RECIPE = Recipe(
    "ImageNet-LT: both stages of CC-SAM with ResNeXt-50",
    {
        "benchmark": {"benchmark": "imagenet-lt", "model": "resnext50_32x4d", "augmentation": "imagenet"},
        "stage1": {
            **SGD,
            **LOGS,
            "output_dir": "runs/imagenet-lt",
            "num_train_epochs": 90,
            "per_device_train_batch_size": 256,
            "per_device_eval_batch_size": 256,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
            "lr_scheduler_type": "cosine",
            "dataloader_num_workers": 8,
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
