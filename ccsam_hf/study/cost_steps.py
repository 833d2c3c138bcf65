"""One training step of each method, ready to be called again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..models import create_model
from ..training import CCSAMTrainer, CCSAMTrainingArguments
from .cost_classifier import loop_loss
from .cost_setting import LOOP, METHODS, RandomImages, Setting


def trainer_step(setting: Setting, options: dict[str, Any], folder: str, bf16: bool) -> Callable[[], None]:
    """One optimizer step of `CCSAMTrainer`, on a batch that is already on the device."""
    torch.manual_seed(0)
    model = create_model(setting.model, setting.num_classes, input_size=setting.image_size)
    args = CCSAMTrainingArguments(
        folder, report_to=[], optim="sgd", optim_args="momentum=0.9", learning_rate=1e-3, bf16=bf16, **options
    )
    trainer = CCSAMTrainer(
        model=model, args=args, train_dataset=RandomImages(setting), class_counts=setting.class_counts()
    )
    trainer.resolve()
    trainer.create_optimizer()
    prepared, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.current_gradient_accumulation_steps = 1
    batch = setting.batch(args.device)

    def step() -> None:
        trainer.training_step(prepared, dict(batch))
        trainer.end_accumulation()
        optimizer.step()
        optimizer.zero_grad()

    return step


def whole_loop_step(setting: Setting, device: torch.device) -> Callable[[], None]:
    """A whole training step whose classifier part is the loop over classes."""
    torch.manual_seed(0)
    model: Any = create_model(setting.model, setting.num_classes, input_size=setting.image_size)
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    batch, counts = setting.batch(device), setting.class_counts().to(device)
    inner: Any = model.timm_model
    head: nn.Linear = inner.get_classifier()

    def step() -> None:
        features = inner.forward_head(inner.forward_features(batch["pixel_values"]), pre_logits=True)
        loop_loss(features, head.weight, head.bias, batch["labels"], counts).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def method_steps(
    setting: Setting, names: Sequence[str], device: torch.device, bf16: bool, folder: str
) -> dict[str, Callable[[], None]]:
    """The named methods' steps; trainers keep what they write in ``folder``."""
    steps = {}
    for name in names:
        if name == LOOP:
            steps[name] = whole_loop_step(setting, device)
        else:
            options = {**METHODS[name], "use_cpu": device.type == "cpu"}
            steps[name] = trainer_step(setting, options, folder, bf16)
    return steps
