"""Options, settings and published values that several methods share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .record import Published, PublishedValues, Setting

PLAIN: dict[str, Any] = {"perturbation": "none"}
MIXUP: dict[str, Any] = {**PLAIN, "mixup_alpha": 1.0}
COSINE: dict[str, Any] = {"classifier": "cosine"}
CRT: dict[str, Any] = {"rule": "crt", "reinitialize_classifier": True}
CE_FORMULA = "mean_i −log softmax(logits_i)[y_i]"

KANG = "facebookresearch/classifier-balancing"
MISLAS = "dvlab-research/MiSLAS"
SADDLE = "val-iisc/Saddle-LongTail"

MIXUP_SETTINGS = (
    Setting("stage1.mixup_alpha", 1.0, f"{MISLAS} config/cifar10, config/cifar100: *_stage1_mixup.yaml, alpha"),
)
CRT_SETTINGS = (
    Setting(
        "stage2.reinitialize_classifier",
        True,
        f"{KANG} run_networks.py: load_model skips the classifier of stage 1",
    ),
)
_LARGE = {
    "imagenet-lt": "imagenet/imagenet_resnet50",
    "inat2018": "ina2018/ina2018_resnet50",
    "places-lt": "places/places_resnet152",
}
# The files of the MiSLAS release for the large sets, by stage.
LARGE_FILES: Mapping[str, str] = {name: f"{MISLAS} config/{path}_stage1_mixup.yaml" for name, path in _LARGE.items()}
LARGE_FILES_2: Mapping[str, str] = {name: f"{MISLAS} config/{path}_stage2_mislas.yaml" for name, path in _LARGE.items()}
LARGE_MIXUP: PublishedValues = {
    (name, None): Published(file, {"mixup_alpha": 0.2}) for name, file in LARGE_FILES.items()
}
