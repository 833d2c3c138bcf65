"""Toy problems small enough to train many times."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from ccsam_hf.models import create_model
from ccsam_hf.training import CCSAMTrainer, CCSAMTrainingArguments, ClassifierTrainer, ClassifierTrainingArguments

CLASSES = 4
# 32 images: two batches of 16, four of 8; 17 / 9 / 4 / 2 are many, medium, few under the thresholds below.
LABELS = [0] * 17 + [1] * 9 + [2] * 4 + [3] * 2
COUNTS = [17, 9, 4, 2]
DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.05,
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "max_grad_norm": 0.0,
    "logging_steps": 2,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "many_shot": 10,
    "few_shot": 5,
}


def toy_images() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(len(LABELS), 3, 8, 8, generator=generator)
    return [{"pixel_values": image + 0.3 * y, "label": y} for image, y in zip(images, LABELS, strict=True)]


def toy_texts() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 30, (len(LABELS), 6), generator=generator)
    return [
        {"input_ids": t, "attention_mask": torch.ones_like(t), "label": y} for t, y in zip(tokens, LABELS, strict=True)
    ]


def toy_model(kind: str = "cnn") -> torch.nn.Module:
    torch.manual_seed(1)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": CLASSES}
    if kind == "cnn":
        return create_model("cifar_resnet20", CLASSES, input_size=8)
    if kind == "vit":
        return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **small, **no_dropout))
    if kind == "resnet":
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
        return ResNetForImageClassification(ResNetConfig(**sizes, num_labels=CLASSES))
    assert kind == "bert"
    return BertForSequenceClassification(BertConfig(vocab_size=30, max_position_embeddings=8, **small, **no_dropout))


def toy_trainer(folder: Path, stage: int = 1, model: Any = "cnn", **options: Any) -> Any:
    """A trainer of stage 1 or 2 on the toy problem; options that TrainingArguments knows go there."""
    keywords = {name: options.pop(name) for name in list(options) if name in TRAINER_OPTIONS}
    data = toy_texts() if model == "bert" else toy_images()
    model = toy_model(model) if isinstance(model, str) else model
    trainer_class, arguments = (
        (CCSAMTrainer, CCSAMTrainingArguments) if stage == 1 else (ClassifierTrainer, ClassifierTrainingArguments)
    )
    keywords = {"train_dataset": data, "eval_dataset": data, **keywords}
    return trainer_class(model=model, args=arguments(str(folder), **{**DEFAULTS, **options}), **keywords)


TRAINER_OPTIONS = ("class_counts", "callbacks", "train_dataset", "eval_dataset", "compute_loss_func", "data_collator")


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


class Toy:
    """Everything above under one name, for tests that cannot import a conftest."""

    images: Callable[[], list[dict[str, Any]]] = staticmethod(toy_images)
    texts = staticmethod(toy_texts)
    model = staticmethod(toy_model)
    trainer = staticmethod(toy_trainer)
    weights = staticmethod(weights)
    defaults = DEFAULTS
    labels = LABELS
    counts = COUNTS
    classes = CLASSES


@pytest.fixture(scope="session")
def toy() -> Any:
    return Toy
