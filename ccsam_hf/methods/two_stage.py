"""Methods with a second stage for the classifier, other than the paper's own."""

from __future__ import annotations

from typing import Any

from .parts import (
    COSINE,
    CRT,
    CRT_SETTINGS,
    KANG,
    LARGE_FILES,
    LARGE_FILES_2,
    LARGE_MIXUP,
    MISLAS,
    MIXUP,
    MIXUP_SETTINGS,
    PLAIN,
)
from .record import Method, Published, Setting, by_benchmark

GCL: dict[str, Any] = {**COSINE, "loss": "gcl"}
CLOUDS = "Keke921/GCLLoss"
ALIGN = (
    "Megvii-BaseDetection/DisAlign "
    "classification/imagenetlt/resnext50/resx50.scratch.imagenet_lt.224size.90e.disalign.10e/config.py"
)
# Smoothing of head and tail and whether BatchNorm shifts, by benchmark and imbalance ratio, with the file.
SMOOTHING = {
    ("cifar10-lt", 100): (0.3, 0.0, False, f"{MISLAS} config/cifar10/cifar10_imb001_stage2_mislas.yaml"),
    ("cifar10-lt", 50): (0.2, 0.0, False, f"{MISLAS} config/cifar10/cifar10_imb002_stage2_mislas.yaml"),
    ("cifar10-lt", 10): (0.1, 0.0, False, f"{MISLAS} config/cifar10/cifar10_imb01_stage2_mislas.yaml"),
    ("cifar100-lt", 100): (0.4, 0.1, True, f"{MISLAS} config/cifar100/cifar100_imb001_stage2_mislas.yaml"),
    ("cifar100-lt", 50): (0.3, 0.0, True, f"{MISLAS} config/cifar100/cifar100_imb002_stage2_mislas.yaml"),
    ("cifar100-lt", 10): (0.2, 0.0, True, f"{MISLAS} config/cifar100/cifar100_imb01_stage2_mislas.yaml"),
    ("imagenet-lt", None): (0.3, 0.0, True, LARGE_FILES_2["imagenet-lt"]),
    ("inat2018", None): (0.3, 0.0, True, LARGE_FILES_2["inat2018"]),
    ("places-lt", None): (0.4, 0.1, True, LARGE_FILES_2["places-lt"]),
}

CE_MIXUP_CRT = Method(
    "ce_mixup_crt",
    "CE + mixup + cRT",
    "Kang et al., ICLR 2020",
    "CE + mixup; then a fresh classifier on class-balanced batches over the frozen backbone",
    MIXUP,
    CRT,
    settings=(*MIXUP_SETTINGS, *CRT_SETTINGS),
    published=by_benchmark(LARGE_MIXUP),
)
MISLAS_ROW = Method(
    "mislas",
    "MiSLAS",
    "Zhong et al., CVPR 2021",
    "CE + mixup; then label-aware smoothing with scaled weights and shifted BatchNorm on class-balanced batches",
    MIXUP,
    {
        "rule": "mislas",
        "loss": "label_aware_smoothing",
        "loss_args": {"epsilon_head": 0.4, "epsilon_tail": 0.1},
        "shift_batch_norm": True,
    },
    settings=(
        *MIXUP_SETTINGS,
        Setting("stage2.loss_args.epsilon_head", 0.4, f"{SMOOTHING['cifar100-lt', 100][3]}: smooth_head"),
        Setting("stage2.loss_args.epsilon_tail", 0.1, f"{SMOOTHING['cifar100-lt', 100][3]}: smooth_tail"),
        Setting("stage2.shift_batch_norm", True, f"{SMOOTHING['cifar100-lt', 100][3]}: shift_bn"),
    ),
    published=by_benchmark(
        {
            (name, ratio): Published(
                file if name not in LARGE_FILES else f"{LARGE_FILES[name]}, {file}",
                {"mixup_alpha": 0.2} if name in LARGE_FILES else {},
                {"loss_args": {"epsilon_head": head, "epsilon_tail": tail}, "shift_batch_norm": shift},
            )
            for (name, ratio), (head, tail, shift, file) in SMOOTHING.items()
        }
    ),
    note="The release trains weights and bias at 0.05 to 0.5 times (lr_factor) the rate of the factors; here at one "
    "rate.",
)
GCL_ROW = Method(
    "gcl",
    "GCL",
    "Li et al., CVPR 2022",
    "−log softmax(s (cos_i − k |ξ_i| w − m onehot(y_i)))[y_i], ξ Gaussian; then the classifier by effective-number "
    "sampling",
    {**MIXUP, **GCL, "loss_args": {"noise_scale": 0.5, "margin": 0.0, "scale": 30.0}},
    {
        "rule": "crt",
        "loss": "gcl",
        "loss_args": {"noise_scale": 0.5, "margin": 0.1, "scale": 20.0},
        "sampling": "effective_number",
    },
    settings=(
        Setting("stage1.mixup_alpha", 1.0, f"{CLOUDS} cifar_train_backbone.py: --mixup, utils.py: mixup_data(alpha=1)"),
        Setting("stage1.loss_args.noise_scale", 0.5, f"{CLOUDS} cifar_train_backbone.py: GCLLoss(noise_mul=0.5)"),
        Setting("stage1.loss_args.margin", 0.0, f"{CLOUDS} cifar_train_backbone.py: GCLLoss(m=0)"),
        Setting("stage1.loss_args.scale", 30.0, f"{CLOUDS} cifar_train_backbone.py: GCLLoss(s=30)"),
        Setting("stage2.loss_args.noise_scale", 0.5, f"{CLOUDS} cifar_train_classifier.py: GCLLoss(noise_mul=0.5)"),
        Setting("stage2.loss_args.margin", 0.1, f"{CLOUDS} cifar_train_classifier.py: GCLLoss(m=0.1)"),
        Setting("stage2.loss_args.scale", 20.0, f"{CLOUDS} cifar_train_classifier.py: GCLLoss(s=20)"),
        Setting("stage2.sampling_beta", 0.9999, f"{CLOUDS} sampler.py: CBEffectNumSampler, 0.9999 to 0.99991 by class"),
    ),
    published=by_benchmark(
        {
            ("places-lt", None): Published(
                f"{CLOUDS} Places-LT/pla_train_backbone.py, pla_train_classifier.py",
                {"mixup_alpha": 0.2, "loss_args": {"noise_scale": 1.0}},
                {"loss_args": {"noise_scale": 1.0, "scale": 15.0}},
            )
        }
    ),
    note="The release's second stage also mixes its images, has focal weights (γ = 1) and samples classes evenly "
    "unless told otherwise; here it has neither of the first two, and the paper's sampling.",
)
TAU_NORM = Method(
    "tau_norm",
    "τ-norm",
    "Kang et al., ICLR 2020",
    "CE; then W_c ← W_c/‖W_c‖^τ",
    PLAIN,
    # Nothing is trained: weight decay would be refused as having no effect.
    {"rule": "tau_norm", "decay_all_parameters": False},
    settings=(
        Setting("stage2.tau", 1.0, f"{KANG} tau_norm.py prints 0, 0.1 ... 2 and singles none out", chosen=True),
        Setting("stage2.keep_bias", False, f"{KANG} tau_norm.py: logits without the bias"),
    ),
    note="Choose τ on held-out training images: --holdout true --stage2.tau T.",
)
DISALIGN = Method(
    "disalign",
    "DisAlign",
    "Zhang et al., CVPR 2021",
    "CE; then σ (α ⊙ logits + β) + (1 − σ) logits with losses weighted by n_c^-ρ, W frozen",
    PLAIN,
    {"rule": "disalign"},
    settings=(
        Setting("stage2.reweighting_exponent", 1.2, f"{ALIGN}: GRW_SCALE, ImageNet-LT; no other benchmark is there"),
    ),
    note="No linear layer has these logits: published with the package's code.",
)
