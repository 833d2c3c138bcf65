"""Places-LT with a ResNet-152 that knows ImageNet.

The paper gives network, batch 128 and SGD 0.9, and like the field it starts from weights trained on the whole of
ImageNet. Which weights, and which layers then train, is a setting: torchvision's first ones (``resnet152.tv_in1k``, the
kind of weights the field began with) and the last block with the classifier, as in Kang et al. (ICLR 2020), whose 30
epochs, lr 0.01, cosine and weight decay 5e-4 are used too. Stage 2 has 10 epochs at lr 0.1 (their release,
facebookresearch/classifier-balancing config/Places_LT/cls_crt.yaml).
"""

from __future__ import annotations

from .recipe import LOGS, SGD, Recipe

RECIPE = Recipe(
    "Places-LT: both stages of CC-SAM with a ResNet-152 pre-trained on ImageNet",
    {
        "benchmark": {
            "benchmark": "places-lt",
            "model": "resnet152.tv_in1k",
            "pretrained": True,
            "trainable_layers": ["layer4", "fc"],
            "augmentation": "imagenet",
        },
        "stage1": {
            **SGD,
            **LOGS,
            "output_dir": "runs/places-lt",
            "num_train_epochs": 30,
            "per_device_train_batch_size": 128,
            "per_device_eval_batch_size": 128,
            "learning_rate": 0.01,
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
