"""CIFAR-10-LT and CIFAR-100-LT with ResNet-32, both stages of CC-SAM.

    accelerate launch recipes/cifar_lt.py --dataset cifar100 --imbalance_ratio 100

takes the images from the Hub (uoft-cs/cifar10, uoft-cs/cifar100) or from --data_dir, a folder of parquet files with
the same columns. The paper (Zhou et al., CVPR 2023, Table 1, overall top-1 at IR 200 / 100 / 50): CIFAR-10-LT
80.94 / 83.92 / 86.22, CIFAR-100-LT 45.66 / 50.83 / 53.91. Schedule as printed there: batch 64, 200 + 30 epochs, SGD
0.9, lr 0.1, 5 epochs of warm-up, x0.1 at epochs 160 and 180, weight decay 2e-4; what stage 2 uses beyond its 30
epochs is not printed and follows the field's practice.
"""

import sys

from ccsam_hf.experiment import main

NAMES = {"cifar10": "cifar10-lt", "cifar100": "cifar100-lt"}
SGD = {"optim": "sgd", "optim_args": "momentum=0.9", "max_grad_norm": 0.0, "weight_decay": 2e-4}
DEFAULTS = {
    "benchmark": {"benchmark": "cifar100-lt", "model": "cifar_resnet32", "augmentation": "crop_flip"},
    "stage1": {
        **SGD,
        "output_dir": "runs/cifar-lt",
        "num_train_epochs": 200,
        "per_device_train_batch_size": 64,
        "per_device_eval_batch_size": 500,
        "learning_rate": 0.1,
        "warmup_steps": 0.025,
        "lr_milestones": [160, 180],
        "decay_all_parameters": True,
        "logging_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "report_to": "none",
    },
    "stage2": {
        **SGD,
        "num_train_epochs": 30,
        "learning_rate": 0.1,
        "lr_scheduler_type": "cosine",
        "logging_strategy": "epoch",
        "save_strategy": "epoch",
    },
}

if __name__ == "__main__":
    flags = sys.argv[1:]
    if "--dataset" in flags:
        place = flags.index("--dataset")
        flags[place : place + 2] = ["--benchmark", NAMES[flags[place + 1]]]
    main(DEFAULTS, flags)
