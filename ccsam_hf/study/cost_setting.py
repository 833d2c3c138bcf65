"""What is measured: the methods by name, a network and its batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SAM: dict[str, Any] = {"perturbation": "sam"}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"perturbation": "none"},
    "SAM": SAM,
    "ImbSAM": {"perturbation": "imbsam"},
    "Focal-SAM": {"perturbation": "focal_sam"},
    "CC-SAM classifier": {},
    "CC-SAM cosine classifier": {"classifier": "cosine", "classifier_args": {"scale": 30.0}},
    "CC-SAM norm_affine": {"perturbed_layers": "norm_affine"},
    "CC-SAM last stage": {"perturbed_layers": "last:1"},
    "CC-SAM all layers": {"perturbed_layers": "all"},
    "3 groups, batch statistics": {**SAM, "partition": "quantiles", "partition_groups": 3},
}
LOOP = "loop over classes"


@dataclass(frozen=True)
class Setting:
    """A network and a batch."""

    model: str
    image_size: int
    batch_size: int
    num_classes: int

    def batch(self, device: torch.device) -> dict[str, Tensor]:
        """Random images; labels from an exponential long tail of ratio 100."""
        generator = torch.Generator().manual_seed(0)
        share = 100.0 ** -(torch.arange(self.num_classes) / max(self.num_classes - 1, 1))
        labels = torch.multinomial(share, self.batch_size, replacement=True, generator=generator)
        images = torch.randn(self.batch_size, 3, self.image_size, self.image_size, generator=generator)
        return {"pixel_values": images.to(device), "labels": labels.to(device)}

    def class_counts(self) -> Tensor:
        return (500 * 100.0 ** -(torch.arange(self.num_classes) / max(self.num_classes - 1, 1))).long()


class RandomImages(torch.utils.data.Dataset):
    """Stands in for a training set while a trainer resolves its options."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": torch.zeros(3, self.setting.image_size, self.setting.image_size), "labels": index}
