"""Three steps of every perturbation, loss, rule and scope on toy networks; rewrites the stored values when run.

    python tests/golden/trajectories.py

Run it only where a change of the numbers is meant, and say in the commit which number changed and why.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from ccsam_hf.losses import LOSSES
from ccsam_hf.training import (
    PRESETS,
    RULES,
    CCSAMTrainer,
    CCSAMTrainingArguments,
    ClassifierTrainer,
    ClassifierTrainingArguments,
)

STORED = Path(__file__).with_name("trajectories.json")
COUNTS = (25, 13, 7, 3)
BATCH = 16
COMMON: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": BATCH,
    "learning_rate": 0.1,
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "weight_decay": 0.001,
    "max_grad_norm": 0.0,
    "lr_scheduler_type": "constant",
    "logging_strategy": "no",
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "many_shot": 10,
    "few_shot": 5,
}


class ToyConfig(PretrainedConfig):
    model_type = "golden_toy"


# Folding a classifier makes the configuration anew from its registered type.
AutoConfig.register(ToyConfig.model_type, ToyConfig, exist_ok=True)


class ToyNet(PreTrainedModel):
    """A convolution with BatchNorm, or two linear layers, before a linear classifier."""

    config_class = ToyConfig
    main_input_name = "pixel_values"

    def __init__(self, config: ToyConfig, kind: str) -> None:
        super().__init__(config)
        if kind == "cnn":
            self.body = nn.Sequential(
                nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()
            )
        else:
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.Tanh())
        self.fc = nn.Linear(6, len(COUNTS))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        pass

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"blocks": r"^body\.(\d+)"}

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=self.fc(self.body(pixel_values)))


def toy_net(kind: str) -> ToyNet:
    """Weights from fixed arithmetic, so that they depend on no generator of random numbers."""
    net = ToyNet(ToyConfig(num_labels=len(COUNTS)), kind).double()
    with torch.no_grad():
        for place, (name, parameter) in enumerate(net.named_parameters(), 1):
            number = torch.arange(parameter.numel(), dtype=torch.float64)
            values = (torch.sin(number * 1.7 + place) * 0.4).view_as(parameter)
            parameter.copy_(values + 1 if name == "body.1.weight" and kind == "cnn" else values)
    return net


def toy_images() -> list[dict[str, Any]]:
    """4 x 4 images of two channels, whose mean depends on the class."""
    labels = [label for label, count in enumerate(COUNTS) for _ in range(count)]
    grid = torch.arange(32, dtype=torch.float64)
    return [
        {"pixel_values": (torch.sin(grid * (1 + 0.37 * i)) + 0.3 * label).view(2, 4, 4), "label": label}
        for i, label in enumerate(labels)
    ]


def run(stage: int, kind: str, options: dict[str, Any]) -> dict[str, list[float]]:
    """The losses of three steps and a digest of all weights and statistics afterwards."""
    trainer_class, arguments = (
        (CCSAMTrainer, CCSAMTrainingArguments) if stage == 1 else (ClassifierTrainer, ClassifierTrainingArguments)
    )
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(folder, **{**COMMON, **options})
        trainer = trainer_class(model=toy_net(kind), args=args, train_dataset=toy_images())
        losses: list[float] = []
        step = trainer.training_step

        def recorded(*given: Any, **named: Any) -> Tensor:
            loss = step(*given, **named)
            losses.append(loss.item())
            return loss

        trainer.training_step = recorded
        trainer.train()
    return {"losses": losses, "weights": digest(trainer.model)}


def digest(model: nn.Module) -> list[float]:
    """Sum, sum of magnitudes, norm, a sum with running weights, and five entries of the model's values in one row."""
    values = torch.cat([v.detach().double().flatten() for _, v in sorted(model.state_dict().items())])
    running = torch.cos(torch.arange(len(values), dtype=torch.float64))
    places = [len(values) * k // 5 for k in range(5)]
    return [
        values.sum().item(),
        values.abs().sum().item(),
        values.norm().item(),
        (values * running).sum().item(),
        *(values[place].item() for place in places),
    ]


ALL_SCOPES = ("all", "last:1", "norm_affine", "no_norm", "names:body.*")
LOSS_OPTIONS: dict[str, dict[str, Any]] = {
    "ldam": {"classifier": "cosine", "classifier_args": {"scale": 1.0}},
    "ldam_drw": {"classifier": "cosine", "classifier_args": {"scale": 1.0}, "loss_args": {"drw_epoch": 0}},
    "gcl": {"classifier": "cosine", "classifier_args": {"scale": 1.0}},
}
RULE_OPTIONS: dict[str, dict[str, Any]] = {"mislas": {"loss": "label_aware_smoothing"}}
OTHERS: dict[str, dict[str, Any]] = {
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
    "adaptive": {"perturbation": "sam", "adaptive": True, "radius": 0.5},
    "cap": {"radius_scale": 1.0, "max_perturbation_ratio": 0.05},
    "class_reduction": {"class_reduction": "class"},
    "class_unbiased": {"class_reduction": "class_unbiased"},
    "cosine": {"classifier": "cosine", "classifier_args": {"scale": 4.0}},
    "feature_gradient": {"feature_gradient": "clean"},
    "flat_weight": {"flat_weight": 0.3},
    "layerwise": {"perturbation": "sam", "layerwise": True},
    "length_unit": {"perturbation_length": "unit"},
    "mixup": {"mixup_alpha": 0.5},
    "momentum": {"radius_momentum": 0.5},
    "quantiles": {"partition": "quantiles", "partition_groups": 2},
    "radius_scale": {"radius_scale": 0.01},
    "ramp": {"radius_schedule": "linear", "radius_ramp": 1.0},
    "reslt": {"classifier": "reslt", "perturbation": "none"},
    "spectral_norm": {"spectral_norm": True},
    "averaging": {"num_train_epochs": 2, "averaging_start": 0},
    "tde": {"classifier": "tde", "perturbation": "none"},
    "unbiased": {"gradient_norm": "unbiased"},
    "weighted": {"loss_args": {"weighting": "effective_number"}},
}
RULE_OTHERS: dict[str, dict[str, Any]] = {
    "cosine_ncm": {"rule": "ncm", "ncm_metric": "cosine"},
    "crt_square_root": {"rule": "crt", "sampling": "square_root"},
    "from_one": {"adversarial_schedule": "progressive_from_one"},
    "reinitialized": {"reinitialize_classifier": True},
    "random_head": {"rule": "crt_flat", "head_direction": "random", "head_flat_weight": 0.5},
    "scale": {"adversarial_scale": 0.5, "num_train_epochs": 2},
    "shifted": {"rule": "crt", "shift_batch_norm": True},
    "tau": {"rule": "tau_norm", "tau": 0.5, "keep_bias": True},
}


def cases() -> dict[str, Callable[[], dict[str, list[float]]]]:
    """Every stored run by its name."""
    found: dict[str, tuple[int, str, dict[str, Any]]] = {}
    for name in PRESETS:
        for kind in ("cnn", "mlp"):
            threshold = {"head_threshold": 10} if name == "imbsam" else {}
            found[f"perturbation/{name}/{kind}"] = (1, kind, {"perturbation": name, **threshold})
    for name in LOSSES:
        found[f"loss/{name}"] = (1, "cnn", {"loss": name, **LOSS_OPTIONS.get(name, {})})
    for name in RULES:
        for kind in ("cnn", "mlp"):
            found[f"rule/{name}/{kind}"] = (2, kind, {"rule": name, **RULE_OPTIONS.get(name, {})})
    for scope in ALL_SCOPES:
        for statistics in ("clean", "batch"):
            options = {"perturbed_layers": scope, "perturbed_statistics": statistics, "relative_radius": 0.05}
            found[f"scope/{scope}/{statistics}"] = (1, "cnn", options)
    found |= {f"stage1/{name}": (1, "cnn", options) for name, options in OTHERS.items()}
    found |= {f"stage2/{name}": (2, "cnn", options) for name, options in RULE_OTHERS.items()}
    return {name: lambda given=given: run(*given) for name, given in found.items()}


def main() -> None:
    lines = [f"{json.dumps(name)}: {json.dumps(case())}" for name, case in cases().items()]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
