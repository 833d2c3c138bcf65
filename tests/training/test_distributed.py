"""Two processes equal one process that accumulates two micro-batches, and resume like one."""

from pathlib import Path

import pytest
import torch
from accelerate import debug_launcher
from safetensors.torch import load_file, save_file

STAGE_1 = {"stage": 1, "relative_radius": 0.05, "flat_weight": 0.7, "mixup_alpha": 0.3}
CASES = {
    "vit": {**STAGE_1, "model": "vit"},
    "vit, classes": {**STAGE_1, "model": "vit", "class_reduction": "class", "feature_gradient": "clean"},
    "cnn": {**STAGE_1, "model": "cnn"},
    "sam": {"stage": 1, "model": "vit", "perturbation": "sam", "flat_weight": 0.7},
    "imbsam": {"stage": 1, "model": "vit", "perturbation": "imbsam", "head_threshold": 5},
    "copies": {"stage": 1, "model": "vit", "perturbed_layers": "all", "flat_weight": 0.7},
    "stage 2": {"stage": 2, "model": "cnn"},
    "stage 2, cached": {"stage": 2, "model": "cnn", "cache_features": True},
    "stage 2, accumulated": {"stage": 2, "model": "cnn", "cache_features": True, "gradient_accumulation_steps": 2},
    "lws, cached": {"stage": 2, "model": "cnn", "rule": "lws", "cache_features": True},
    "disalign": {"stage": 2, "model": "cnn", "rule": "disalign"},
    "ncm": {"stage": 2, "model": "cnn", "rule": "ncm"},
}


SYNC = {"stage": 1, "model": "vit", "perturbation_sync": True, "flat_weight": 0.7}
JOINED = {
    "joined classifier": {**SYNC, "relative_radius": 0.05},
    "joined classes": {**SYNC, "relative_radius": 0.05, "class_reduction": "class", "gradient_norm": "unbiased"},
    "joined sam": {**SYNC, "perturbation": "sam"},
    "joined imbsam": {**SYNC, "perturbation": "imbsam", "head_threshold": 5},
}


def train_joined(toy, folder: Path, case: str, processes: int) -> None:
    """One batch of 16, or its two halves on two processes."""
    trainer = toy.trainer(folder, per_device_train_batch_size=16 // processes, **JOINED[case])
    trainer.train()
    if trainer.is_world_process_zero():
        save_file(toy.weights(trainer), folder / f"{case}.safetensors")


def train(toy, folder: Path, case: str, processes: int) -> None:
    options = dict(CASES[case])
    batch = 8 // options.get("gradient_accumulation_steps", 1)
    options["gradient_accumulation_steps"] = options.get("gradient_accumulation_steps", 1) * 2 // processes
    trainer = toy.trainer(folder, per_device_train_batch_size=batch, **options)
    assert trainer.args.world_size == processes
    trainer.train()
    if trainer.is_world_process_zero():
        save_file(toy.weights(trainer), folder / f"{case}.safetensors")


def resume(toy, folder: Path) -> None:
    """Six steps of two processes, in one go and from the checkpoint in the middle of the second epoch."""
    for name, checkpoint in (("whole", None), ("resumed", str(folder / "checkpoint-3"))):
        options = {**CASES["cnn"], "num_train_epochs": 3, "save_strategy": "steps", "save_steps": 3}
        trainer = toy.trainer(folder, **options)
        trainer.train(resume_from_checkpoint=checkpoint)
        if trainer.is_world_process_zero():
            save_file(toy.weights(trainer), folder / f"{name}.safetensors")


def both(toy, folder: str) -> None:
    for case in CASES:
        train(toy, Path(folder), case, 2)
    for case in JOINED:
        train_joined(toy, Path(folder), case, 2)
    (Path(folder) / "run").mkdir(exist_ok=True)
    resume(toy, Path(folder) / "run")


@pytest.fixture(scope="module")
def two_processes(toy, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    debug_launcher(both, args=(toy, str(folder)), num_processes=2)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_equal_one_process_with_accumulation(toy, tmp_path, two_processes, case) -> None:
    train(toy, tmp_path, case, 1)
    one, two = (load_file(folder / f"{case}.safetensors") for folder in (tmp_path, two_processes))
    start = toy.weights(toy.trainer(tmp_path, model=CASES[case]["model"]))
    assert any(name not in start or not torch.equal(value, start[name]) for name, value in one.items())
    for name, value in one.items():
        if "running_" not in name and "tracked" not in name:  # BatchNorm's buffers are those of process 0
            torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("case", JOINED)
def test_joined_gradients_equal_one_process_with_the_joined_batch(toy, tmp_path, two_processes, case) -> None:
    train_joined(toy, tmp_path, case, 1)
    one, two = (load_file(folder / f"{case}.safetensors") for folder in (tmp_path, two_processes))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_resume_like_one(two_processes) -> None:
    whole, resumed = (load_file(two_processes / "run" / f"{name}.safetensors") for name in ("whole", "resumed"))
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
