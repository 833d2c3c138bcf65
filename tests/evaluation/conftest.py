"""A tiny transformers classifier and data for it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

CLASSES = 6
COUNTS = [400, 150, 60, 30, 8, 2]
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]


class TinyConfig(PreTrainedConfig):
    model_type = "tiny-for-evaluation"


class TinyClassifier(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, config.num_labels)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=self.head(self.body(pixel_values)))


def tiny_model(names: list[str] | None = NAMES, counts: list[int] | None = COUNTS, **extra: object) -> TinyClassifier:
    torch.manual_seed(0)
    config = TinyConfig(num_labels=CLASSES, **extra)
    if names is not None:
        config.id2label = dict(enumerate(names))
    if counts is not None:
        config.class_counts = counts
    model = TinyClassifier(config)
    nn.init.normal_(model.head.weight, std=1.0, generator=torch.Generator().manual_seed(1))
    return model.eval()


def tiny_data(size: int, seed: int = 0, shift: float = 0.0) -> list[dict]:
    """Images of six clusters; `shift` moves them away from where the training images lie."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(CLASSES, 3, 2, 2, generator=torch.Generator().manual_seed(5))
    labels = torch.randint(0, CLASSES, (size,), generator=generator)
    pixels = centres[labels] + torch.randn(size, 3, 2, 2, generator=generator) + shift
    return [{"pixel_values": p, "labels": y} for p, y in zip(pixels, labels.tolist(), strict=True)]


def logits_and_labels(model: TinyClassifier, data: list[dict]) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits = model(torch.stack([item["pixel_values"] for item in data])).logits
    return logits.double(), torch.tensor([item["labels"] for item in data])


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    return SimpleNamespace(
        model=tiny_model, data=tiny_data, logits_and_labels=logits_and_labels, names=NAMES, counts=COUNTS
    )
