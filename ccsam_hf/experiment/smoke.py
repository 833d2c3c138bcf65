"""``--smoke``: settings under which any recipe runs end to end in seconds."""

from __future__ import annotations

from typing import Any

from .options import OWN_IMAGES

STEPS: dict[str, Any] = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "learning_rate": 0.02,
    "warmup_steps": 0,
    "lr_milestones": None,
    "save_strategy": "no",
    "disable_tqdm": True,
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": False,
}


def smoke_sections(benchmark: str) -> dict[str, dict[str, Any]]:
    """What replaces the defaults of a recipe for that benchmark."""
    data: dict[str, Any] = {"model": "cifar_resnet20", "pretrained": False, "trainable_layers": None}
    stage1: dict[str, Any] = {**STEPS, "output_dir": f"runs/smoke-{benchmark}"}
    if benchmark != "digits-lt":
        # The generated sets are small: their classes are many-, medium- and few-shot by thresholds of their own.
        stage1 |= {"many_shot": 12, "few_shot": 6}
        data |= {"subset": benchmark != OWN_IMAGES}
    if not benchmark.startswith(("cifar", "digits")):
        data["input_size"] = 16
    return {"benchmark": data, "stage1": stage1, "stage2": {"num_train_epochs": 1, "learning_rate": 0.02}}
