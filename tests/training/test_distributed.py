"""Two processes equal one that accumulates two micro-batches, or that has the joined batch, and resume like one.

Run as a program by `torch.distributed.run`, it trains one joined case on the GPUs at hand (or, with cpu, without).
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import debug_launcher
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce

STAGE_1 = {"stage": 1, "relative_radius": 0.05, "flat_weight": 0.7, "mixup_alpha": 0.3}
CASES = {
    "vit": {**STAGE_1, "model": "vit"},
    "vit, classes": {**STAGE_1, "model": "vit", "class_reduction": "class", "feature_gradient": "clean"},
    "cnn": {**STAGE_1, "model": "cnn"},
    "sam": {"stage": 1, "model": "vit", "perturbation": "sam", "flat_weight": 0.7},
    "imbsam": {"stage": 1, "model": "vit", "perturbation": "imbsam", "head_threshold": 5},
    "copies": {"stage": 1, "model": "vit", "perturbed_layers": "all", "flat_weight": 0.7},
    "stage 2": {"stage": 2, "model": "cnn"},
    # Without BatchNorm everything is equal, buffers included.
    "stage 2, vit": {"stage": 2, "model": "vit"},
    "stage 2, vit, cached": {"stage": 2, "model": "vit", "cache_features": True},
    "stage 2, vit, released": {"stage": 2, "model": "vit", "rule": "adversarial_released"},
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
NORMS = {**SYNC, "model": "cnn", "learning_rate": 0.01}
JOINED_STATISTICS = {
    "joined statistics, classifier": {**NORMS, "relative_radius": 0.05},
    "joined statistics, sam": {**NORMS, "perturbation": "sam"},
    "joined statistics, norms": {**NORMS, "perturbation": "sam", "perturbed_layers": "norm_affine"},
    "joined statistics, imbsam": {**NORMS, "perturbation": "imbsam", "head_threshold": 5},
}
JOINED |= JOINED_STATISTICS


class JoinedBatchNorm(nn.BatchNorm2d):
    """SyncBatchNorm, which torch has on GPUs only, written out: mean and variance of the batch of all processes."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(input)
        own = torch.stack([torch.full_like(self.weight, input.numel() / input.shape[1]),
                           input.sum((0, 2, 3)), input.square().sum((0, 2, 3))])  # fmt: skip
        number, total, squares = all_reduce(own)
        mean = total / number
        variance = squares / number - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * number / (number - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return input * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


def joined_model(toy, kind: str) -> nn.Module:
    """The toy network, its BatchNorm (if any) joined over processes."""
    model = toy.model(kind)
    if torch.cuda.is_available():
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            joined = JoinedBatchNorm(module.num_features, module.eps, module.momentum)
            joined.load_state_dict(module.state_dict())
            model.set_submodule(name, joined)
    return model


def train_joined(toy, folder: Path, case: str, processes: int, **more) -> None:
    """One batch of 16, or its two halves on two processes."""
    options = {**JOINED[case], **more}
    model = joined_model(toy, options.pop("model"))
    trainer = toy.trainer(folder, model=model, per_device_train_batch_size=16 // processes, **options)
    assert trainer.args.world_size == processes
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


def evaluate(toy, folder: Path, processes: int) -> dict[str, float]:
    """31 images in batches of 4: two processes repeat some of them to fill the last batches."""
    trainer = toy.trainer(folder, model="vit", eval_dataset=toy.images()[:31], per_device_eval_batch_size=4)
    assert trainer.args.world_size == processes
    found = trainer.evaluate()
    if trainer.is_world_process_zero():
        (folder / "evaluation.json").write_text(json.dumps(found), encoding="utf-8")
    return found


def both(toy, folder: str) -> None:
    evaluate(toy, Path(folder), 2)
    for case in CASES:
        train(toy, Path(folder), case, 2)
    for case in JOINED:
        train_joined(toy, Path(folder), case, 2)
    (Path(folder) / "run").mkdir(exist_ok=True)
    resume(toy, Path(folder) / "run")


@pytest.fixture(scope="module")
def two_processes(toy, tmp_path_factory, one_thread) -> Path:
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
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=5e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_evaluation_equals_one_process(toy, tmp_path, two_processes) -> None:
    one, two = evaluate(toy, tmp_path, 1), json.loads((two_processes / "evaluation.json").read_text(encoding="utf-8"))
    for name in ("eval_loss", "eval_accuracy", "eval_many", "eval_few"):
        assert two[name] == pytest.approx(one[name], rel=1e-5), name


def test_resume_like_one(two_processes) -> None:
    whole, resumed = (load_file(two_processes / "run" / f"{name}.safetensors") for name in ("whole", "resumed"))
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: torch's SyncBatchNorm refuses a CPU")
@pytest.mark.parametrize("case", JOINED_STATISTICS)
def test_joined_statistics_on_two_gpus_equal_one(tmp_path, case) -> None:
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        subprocess.run([sys.executable, *launch, __file__, case, str(tmp_path / str(processes))], check=True)
    one, two = (load_file(tmp_path / str(processes) / f"{case}.safetensors") for processes in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def main(case: str, folder: str, device: str = "cuda") -> None:
    found = importlib.util.spec_from_file_location("toy_problems", Path(__file__).with_name("conftest.py"))
    assert found is not None
    assert found.loader is not None
    toys = importlib.util.module_from_spec(found)
    found.loader.exec_module(toys)
    processes = int(os.environ["WORLD_SIZE"])
    train_joined(toys.Toy, Path(folder), case, processes, use_cpu=device == "cpu")


if __name__ == "__main__":
    main(*sys.argv[1:])
