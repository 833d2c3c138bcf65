"""Division and norms that stay finite, with finite gradients, where a divisor is zero or its square underflows."""

from __future__ import annotations

import torch
from torch import Tensor


def positive_or_one(values: Tensor) -> Tensor:
    """The values where they are positive, 1 elsewhere: a divisor that is never zero."""
    return torch.where(values > 0, values, 1)


def safe_divide(numerator: Tensor | float, denominator: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
    """numerator / denominator where the denominator is positive, `otherwise` elsewhere.

    Shapes broadcast. Gradients are zero, not NaN, where `otherwise` stands.

    Example:
        >>> safe_divide(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))
        tensor([0.0000, 0.5000])
    """
    return torch.where(denominator > 0, numerator / positive_or_one(denominator), otherwise)


def safe_inverse(values: Tensor) -> Tensor:
    """1 / values where they are positive, 0 elsewhere."""
    return safe_divide(1.0, values)


def safe_norm(values: Tensor, dim: int = -1, keepdim: bool = False) -> Tensor:
    """Euclidean norm along a dimension whose squares neither underflow nor overflow; zero has gradient zero.

    ‖v‖ = m · ‖v / m‖ with m = max |v_i|, taken as a constant.
    """
    largest = positive_or_one(values.detach().abs().amax(dim, keepdim=True))
    norm = largest * torch.linalg.vector_norm(values / largest, dim=dim, keepdim=True)
    return norm if keepdim else norm.squeeze(dim)
