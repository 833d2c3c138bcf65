"""CC-SAM on real handwritten digits made long-tailed (IR 50), shipped with the package: no download, no GPU.

    accelerate launch recipes/digits_lt.py

Trains a plain cross-entropy control, stage 1 and stage 2 and prints one table.
"""

from ccsam_hf.experiment import main

DEFAULTS = {
    "benchmark": {"benchmark": "digits-lt", "model": "cifar_resnet20", "augmentation": "crop", "control": True},
    "stage1": {
        "output_dir": "runs/digits-lt",
        "num_train_epochs": 60,
        "per_device_train_batch_size": 32,
        "learning_rate": 0.1,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "weight_decay": 5e-4,
        "decay_all_parameters": True,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "max_grad_norm": 0.0,
        "per_device_eval_batch_size": 250,
        "logging_strategy": "epoch",
        "save_strategy": "no",
        "report_to": "none",
    },
    "stage2": {
        "num_train_epochs": 20,
        "learning_rate": 0.1,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "weight_decay": 5e-4,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": 0.0,
        "save_strategy": "no",
    },
}

if __name__ == "__main__":
    main(DEFAULTS)
