"""Parameters that scale or shift, and BatchNorm with the statistics of the clean pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .group_gradients import Perturbation


class PerSample(torch.autograd.Function):
    """A parameter as seen by each sample, [B, *shape], all alike; its per-group gradients go to the tape."""

    @staticmethod
    def forward(ctx: Any, tape: Any, name: str, parameter: Tensor) -> Tensor:
        ctx.tape, ctx.name = tape, name
        return parameter.expand(tape.layout.batch_size, *parameter.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor | None]:
        if not ctx.tape.capturing:
            return None, None, grad.sum(0)
        add_sample_gradients(ctx.tape, ctx.name, grad)
        return None, None, None


def add_sample_gradients(tape: Any, name: str, per_sample: Tensor) -> None:
    """Give the tape a parameter's gradients per group from those of each sample, [B, *shape]."""

    def gradient(k: int) -> Tensor:
        segment = tape.layout.segments[k]
        return per_sample[segment.samples].unflatten(0, (segment.number, segment.size)).sum(1)

    tape.gradients.add(name, gradient, cheap=True)


class _Moved(torch.autograd.Function):
    """p + ε_{c(i)} for each sample; ε is a constant, so all samples send their gradient to p."""

    @staticmethod
    def forward(ctx: Any, moved: Tensor, parameter: Tensor) -> Tensor:
        return moved

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad.sum(0)


def moved_per_sample(perturbation: Perturbation, name: str, parameter: Tensor) -> Tensor:
    """p + ε_{c(i)} for each sample i, [B, *shape]; the gradient reaches p as if ε were a constant."""
    constant = parameter.detach()
    parts = [
        perturbation.moved(name, k, constant).repeat_interleave(segment.size, 0)
        for k, segment in enumerate(perturbation.layout.segments)
    ]
    return _Moved.apply(torch.cat(parts), parameter)


def channels(values: Tensor, x: Tensor) -> Tensor:
    """[C] or [B, C] shaped to multiply x [B, C, *space]."""
    return values.view(*values.shape, *[1] * (x.dim() - 2))


class CleanBatchNorm(torch.autograd.Function):
    """BatchNorm with batch statistics, which it leaves on the tape and updates the running ones with.

    While the tape captures, the backward treats the statistics as constants, as the perturbed pass will, and
    delivers the gradients of weight and bias per group; otherwise it is BatchNorm's own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tape: Any,
        names: tuple[str | None, str | None],
        settings: tuple[Tensor | None, Tensor | None, float, float],
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        running_mean, running_var, momentum, eps = settings
        y, mean, inverse = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        tape.statistics.append((mean, inverse))
        ctx.tape, ctx.names, ctx.eps = tape, names, eps
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        if not ctx.tape.capturing:
            mask = [ctx.needs_input_grad[3], weight is not None, weight is not None]
            gradients = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, None, None, mean, inverse, True, ctx.eps, mask
            )
            return None, None, None, *gradients
        space = tuple(range(2, x.dim()))
        weight_name, bias_name = ctx.names
        if weight_name:
            products = grad * (x - channels(mean, x))
            add_sample_gradients(ctx.tape, weight_name, (products.sum(space) if space else products) * inverse)
        if bias_name:
            add_sample_gradients(ctx.tape, bias_name, grad.sum(space) if space else grad)
        scale = inverse if weight is None else inverse * weight
        return None, None, None, grad * channels(scale, x), None, None


def fixed_batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, inverse: Tensor) -> Tensor:
    """(x − mean) · inverse · weight + bias with constants for statistics; weight and bias [C] or [B, C]."""
    scale = inverse if weight is None else inverse * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return torch.addcmul(channels(shift, x), x, channels(scale, x))
