"""Mixup whose draws depend on nothing but the seed and the place in the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..losses import Target


def mixup(inputs: Tensor, labels: Tensor, alpha: float, key: Sequence[int]) -> tuple[Tensor, Target]:
    """Blend every sample with another of its batch, x̃ = λ x_i + (1 − λ) x_j, λ ~ Beta(α, α) once per batch.

    ``inputs`` [B, ...] floating, ``labels`` [B]. The draw is a pure function of ``key`` (seed, step, micro-batch), so
    a resumed or differently distributed run mixes the same samples. The target keeps both labels and λ (Zhang et
    al., ICLR 2018, section 2).
    """
    generator = np.random.default_rng(key)
    weight = float(generator.beta(alpha, alpha))
    partner = torch.from_numpy(generator.permutation(len(labels))).to(labels.device)
    mixed = torch.lerp(inputs[partner], inputs, weight)
    return mixed, Target(labels, labels[partner], torch.full_like(labels, weight, dtype=torch.float32))
