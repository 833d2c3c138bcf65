"""Classifiers that take the place of a network's last linear layer.

A published checkpoint can ship this one file as its remote code (`add_remote_code`): it imports nothing of the package.
"""

import math
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

# What the linear layer that a head folds into has in common with the head.
Preserved = Literal["logits", "predictions"]


class Head(nn.Module):
    """Features [B, in_features] -> logits [B, out_features], in place of an `nn.Linear`.

    kind: its name in `HEADS`. preserved: what `folded` keeps, None where the head is no linear function.
    """

    kind: ClassVar[str]
    preserved: Preserved | None = None
    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, with_bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(linear.weight.detach().clone())
        self.replaced_bias = linear.bias is not None
        self.bias = nn.Parameter(linear.bias.detach().clone()) if with_bias and self.replaced_bias else None

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Any) -> Self:
        """The head that starts from a linear layer's weights; ValueError for an option it does not have."""
        try:
            head = cls(linear, **options)
        except TypeError as error:
            raise ValueError(f"A {cls.kind!r} classifier does not take these options: {error}") from error
        return head.train(linear.training)

    def options(self) -> dict[str, Any]:
        """What `from_linear` needs, besides the linear layer, to build this head again."""
        return {}

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight [C, D] and bias [C] (None for zero) of the linear layer that keeps what `preserved` says."""
        raise ValueError(f"A {self.kind!r} classifier is no linear function of the features and cannot be folded.")

    def _new(self, values: Tensor) -> nn.Parameter:
        return nn.Parameter(values.to(self.weight.device, self.weight.dtype))


class CosineClassifier(Head):
    """logits_c = s cos(W_c, z), without bias.

    scale: s, positive. 1 for losses that scale the cosines themselves (LDAM, GCL: their `logit_scale`); plain cross
        entropy needs 10 to 30, since logits within [-1, 1] cannot fit anything.
    learned_scale: whether s is trained.
    """

    kind = "cosine"
    preserved = "predictions"
    scale: Tensor

    def __init__(self, linear: nn.Linear, scale: float = 1.0, learned_scale: bool = False) -> None:
        super().__init__(linear, with_bias=False)
        self.learned_scale = learned_scale
        self.initial_scale = _positive("scale", scale)
        if learned_scale:
            self.scale = self._new(torch.tensor(scale))
        else:
            self.register_buffer("scale", self.weight.new_tensor(scale))

    def options(self) -> dict[str, Any]:
        return {"scale": self.initial_scale, "learned_scale": self.learned_scale}

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """s W_c/‖W_c‖: the logits of every sample are multiplied by its ‖z‖, which changes no order."""
        return self.scale * F.normalize(self.weight, dim=1), None


class ScaledLinear(Head):
    """logits_c = f_c (⟨W_c, z⟩ + b_c): a linear layer with one learned factor for each class, 1 at the start.

    Learnable weight scaling (LWS) trains the factors alone: B. Kang et al., Decoupling representation and classifier
    for long-tailed recognition, ICLR 2020; that the bias is scaled too is the release's reading.
    """

    kind = "lws"
    preserved = "logits"

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.scale = self._new(torch.ones(self.out_features))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(features, self.weight, self.bias)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        return self.scale[:, None] * self.weight, None if self.bias is None else self.scale * self.bias


class AlignedLinear(Head):
    """logits' = σ (α ⊙ l + β) + (1 − σ) l with l = W z + b and the confidence σ = sigmoid(⟨v, z⟩ + v_0) in (0, 1).

    DisAlign trains α, β [C], v and v_0 alone, from α = 1, β = 0 (no change) and v = v_0 = 0. S. Zhang et al.,
    Distribution alignment: a unified framework for long-tail visual recognition, CVPR 2021. This is the release's form
    for segmentation; the one for images, (1 + σ α) l + σ β, is the same family with α one smaller, started at α = 1.
    The release starts at v = 0.1, where σ is 1 without a gradient for 2,048 features of ordinary size.
    """

    kind = "disalign"

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.logit_scale = self._new(torch.ones(self.out_features))
        self.logit_bias = self._new(torch.zeros(self.out_features))
        self.confidence_weight = self._new(torch.zeros(1, self.in_features))
        self.confidence_bias = self._new(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        logits = F.linear(features, self.weight, self.bias)
        confidence = F.linear(features, self.confidence_weight, self.confidence_bias).sigmoid()
        return confidence * (self.logit_scale * logits + self.logit_bias) + (1 - confidence) * logits


class DeconfoundedClassifier(Head):
    """K cosine classifiers on K equal parts of the features; evaluation removes the features' mean direction.

    With x^k = z^k/‖z^k‖ and V^k_c = W^k_c/(‖W^k_c‖ + γ), training has logits_c = τ/K Σ_k ⟨x^k, V^k_c⟩ and keeps
    z̄ ← m z̄ + (1 − m) · batch mean of z. Evaluation replaces x^k by x^k − α cos(x^k, d^k) d^k with d^k = z̄^k/‖z̄^k‖,
    the total direct effect (TDE). α does not enter the training and may be changed afterwards.

    K. Tang, J. Huang, H. Zhang: Long-tailed classification by keeping the good and removing the bad momentum causal
    effect. NeurIPS 2020. The release adds each batch mean with weight 1 instead of 1 − m, which gives the
    same direction.

    num_heads: K, a divisor of the number of features. scale: τ. alpha: α, 0 for none. gamma: γ. momentum: m. The
    defaults are the release's.
    """

    kind = "tde"
    direction: Tensor

    def __init__(
        self,
        linear: nn.Linear,
        num_heads: int = 2,
        scale: float = 16.0,
        alpha: float = 3.0,
        gamma: float = 1 / 32,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(linear, with_bias=False)
        if num_heads < 1 or self.in_features % num_heads:
            raise ValueError(
                f"num_heads={num_heads} does not divide the {self.in_features} features: choose a divisor."
            )
        if not 0 <= momentum < 1 or alpha < 0 or gamma < 0:
            raise ValueError(f"momentum must lie in [0, 1), alpha and gamma at least 0: {momentum}, {alpha}, {gamma}.")
        self.num_heads, self.scale = num_heads, _positive("scale", scale)
        self.alpha, self.gamma, self.momentum = alpha, gamma, momentum
        self.register_buffer("direction", self.weight.new_zeros(self.in_features))
        # One part is a linear function of z/‖z‖, several are not, because every part has a norm of its own.
        self.preserved = "predictions" if num_heads == 1 else None

    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("num_heads", "scale", "alpha", "gamma", "momentum")}

    def forward(self, features: Tensor) -> Tensor:
        parts = F.normalize(features.unflatten(1, (self.num_heads, -1)), dim=2)
        if self.training:
            self._follow(features)
        else:
            parts = self._without_direction(parts)
        return self.scale / self.num_heads * F.linear(parts.flatten(1), self._unit_weight())

    @torch.no_grad()
    def _follow(self, features: Tensor) -> None:
        self.direction.lerp_(features.mean(0).to(self.direction.dtype), 1 - self.momentum)

    def _without_direction(self, parts: Tensor) -> Tensor:
        unit = F.normalize(self.direction.unflatten(0, (self.num_heads, -1)), dim=1)
        return parts - self.alpha * (parts * unit).sum(2, keepdim=True) * unit

    def _unit_weight(self) -> Tensor:
        parts = self.weight.unflatten(1, (self.num_heads, -1))
        return (parts / (parts.norm(dim=2, keepdim=True) + self.gamma)).flatten(1)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """With one head: τ V (I − α d dᵀ), whose logits are those of evaluation times ‖z‖."""
        if self.num_heads > 1:
            return super().folded()
        return self.scale * self._without_direction(self._unit_weight()[:, None])[:, 0], None


class ResidualBranches(Head):
    """logits = Σ_k (W A_k z + b) with three branches A_k [D, D] on one shared linear layer.

    The first branch is trained on all classes, the second on medium and few, the third on few-shot classes, and their
    sum on all. J. Cui et al., ResLT: residual learning for long-tailed recognition, TPAMI 2022. A branch is the 1x1
    convolution, linear, so that it may follow the pooling; it starts as `nn.Linear` does. The release's CIFAR network
    has batch normalisation in its place.

    branch_weight: β in (1 − β) · loss of the sum + β · loss of the branches; the default is the release's for
        CIFAR-100-LT.
    """

    kind = "reslt"
    preserved = "logits"

    def __init__(self, linear: nn.Linear, branch_weight: float = 0.995) -> None:
        super().__init__(linear)
        if not 0 <= branch_weight <= 1:
            raise ValueError(f"branch_weight must lie in 0..1, got {branch_weight}.")
        self.branch_weight = branch_weight
        bound = 1 / math.sqrt(self.in_features)
        self.branches = self._new(torch.empty(3, self.in_features, self.in_features).uniform_(-bound, bound))

    def options(self) -> dict[str, Any]:
        return {"branch_weight": self.branch_weight}

    def branch_logits(self, features: Tensor) -> Tensor:
        """The logits of each branch, [3, B, C]."""
        return torch.stack([F.linear(F.linear(features, branch), self.weight, self.bias) for branch in self.branches])

    def forward(self, features: Tensor) -> Tensor:
        return self.branch_logits(features).sum(0)

    def folded(self) -> tuple[Tensor, Tensor | None]:
        return self.weight @ self.branches.sum(0), None if self.bias is None else 3 * self.bias


KINDS = (CosineClassifier, ScaledLinear, AlignedLinear, DeconfoundedClassifier, ResidualBranches)
HEADS: dict[str, type[Head]] = {head.kind: head for head in KINDS}


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value}.")
    return value
