"""Convolutions and linear layers whose weight differs from one group of samples to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .layout import GroupLayout, Segment

Copies = Callable[[int], Tensor]


class LinearMap(Protocol):
    """An operator linear in its weight and in its input, without the bias, on a batch and on a segment."""

    def output(self, x: Tensor, weight: Tensor) -> Tensor: ...

    def input_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor: ...

    def weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor: ...

    def segment_output(self, x: Tensor, copies: Tensor, segment: Segment) -> Tensor: ...

    def segment_input_gradient(self, grad: Tensor, x: Tensor, copies: Tensor, segment: Segment) -> Tensor: ...

    def segment_weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor, segment: Segment) -> Tensor: ...

    def bias_shape(self, output: Tensor) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Linear:
    """y = x Wᵀ on [B, *, D_in] with weight [D_out, D_in]."""

    def output(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def input_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return grad @ weight

    def weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return grad.flatten(0, -2).T @ x.flatten(0, -2)

    def segment_output(self, x: Tensor, copies: Tensor, segment: Segment) -> Tensor:
        return torch.bmm(_rows(x, segment), copies.transpose(1, 2)).reshape(*x.shape[:-1], -1)

    def segment_input_gradient(self, grad: Tensor, x: Tensor, copies: Tensor, segment: Segment) -> Tensor:
        return torch.bmm(_rows(grad, segment), copies).reshape(x.shape)

    def segment_weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor, segment: Segment) -> Tensor:
        return torch.bmm(_rows(grad, segment).transpose(1, 2), _rows(x, segment))

    def bias_shape(self, output: Tensor) -> tuple[int, ...]:
        return (*[1] * (output.dim() - 2), output.shape[-1])


def _rows(x: Tensor, segment: Segment) -> Tensor:
    """[g · size, *, D] as [g, size · *, D]."""
    return x.reshape(segment.number, -1, x.shape[-1])


@dataclass(frozen=True)
class Convolution:
    """A convolution on [B, C_in, *space]; a segment of g groups is one convolution with g times as many channels.

    The samples of a group keep the batch dimension and the groups move into the channels, [size, g · C_in, *space]
    with g times the layer's own groups, for which libraries have kernels about as fast as for an ordinary one.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def output(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._convolve(x, weight, self.groups)

    def input_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return self._backward(grad, x, weight, self.groups, 0)

    def weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return self._backward(grad, x, weight, self.groups, 1)

    def segment_output(self, x: Tensor, copies: Tensor, segment: Segment) -> Tensor:
        y = self._convolve(_to_channels(x, segment), copies.flatten(0, 1), self.groups * segment.number)
        return _to_samples(y, segment)

    def segment_input_gradient(self, grad: Tensor, x: Tensor, copies: Tensor, segment: Segment) -> Tensor:
        grad, x = _to_channels(grad, segment), _to_channels(x, segment)
        groups = self.groups * segment.number
        return _to_samples(self._backward(grad, x, copies.flatten(0, 1), groups, 0), segment)

    def segment_weight_gradient(self, grad: Tensor, x: Tensor, weight: Tensor, segment: Segment) -> Tensor:
        grad, x = _to_channels(grad, segment), _to_channels(x, segment)
        shaped = weight.expand(segment.number, *weight.shape).flatten(0, 1)
        gradient = self._backward(grad, x, shaped, self.groups * segment.number, 1)
        return gradient.unflatten(0, (segment.number, -1))

    def bias_shape(self, output: Tensor) -> tuple[int, ...]:
        return (output.shape[1], *[1] * (output.dim() - 2))

    def _convolve(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        zeros = [0] * len(self.stride)
        return torch.convolution(x, weight, None, self.stride, self.padding, self.dilation, False, zeros, groups)

    def _backward(self, grad: Tensor, x: Tensor, weight: Tensor, groups: int, which: int) -> Tensor:
        mask = [which == 0, which == 1, False]
        zeros = [0] * len(self.stride)
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, self.stride, self.padding, self.dilation, False, zeros, groups, mask
        )[which]


def _to_channels(x: Tensor, segment: Segment) -> Tensor:
    """[g · size, C, *space] as [size, g · C, *space]; a view when the groups have one sample or there is one group."""
    x = x.contiguous().unflatten(0, (segment.number, segment.size))
    return x.transpose(0, 1).flatten(1, 2)


def _to_samples(y: Tensor, segment: Segment) -> Tensor:
    """The inverse of ``_to_channels``."""
    return y.unflatten(1, (segment.number, -1)).transpose(0, 1).flatten(0, 1)


def by_segments(layout: GroupLayout, piece: Callable[[int, slice], Tensor]) -> Tensor:
    """Pieces of consecutive samples joined to a batch."""
    parts = [piece(k, segment.samples) for k, segment in enumerate(layout.segments)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class CleanLayer(torch.autograd.Function):
    """The ordinary layer; while the tape captures, its backward delivers one weight gradient per group."""

    @staticmethod
    def forward(ctx: Any, tape: Any, op: LinearMap, name: str | None, x: Tensor, weight: Tensor) -> Tensor:
        ctx.tape, ctx.op, ctx.name = tape, op, name
        ctx.save_for_backward(x, weight)
        return op.output(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        op, tape, name = ctx.op, ctx.tape, ctx.name
        grad_x = op.input_gradient(grad, x, weight) if ctx.needs_input_grad[3] else None
        if not tape.capturing:
            return None, None, None, grad_x, op.weight_gradient(grad, x, weight)

        segments = tape.layout.segments
        inputs, constant = x.detach(), weight.detach()

        def gradient(k: int) -> Tensor:
            rows = segments[k].samples
            return op.segment_weight_gradient(grad[rows], inputs[rows], constant, segments[k])

        tape.gradients.add(name, gradient)
        return None, None, None, grad_x, None


class CopiedLayer(torch.autograd.Function):
    """Each group of samples through its own W + ε_c; ε_c is constant, so all of them send their gradient to W."""

    @staticmethod
    def forward(ctx: Any, layout: GroupLayout, op: LinearMap, copies: Copies, x: Tensor, weight: Tensor) -> Tensor:
        ctx.layout, ctx.op, ctx.copies = layout, op, copies
        ctx.save_for_backward(x, weight)
        return by_segments(layout, lambda k, rows: op.segment_output(x[rows], copies(k), layout.segments[k]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        op, layout, copies = ctx.op, ctx.layout, ctx.copies
        grad_x = grad_weight = None
        if ctx.needs_input_grad[3]:
            grad_x = by_segments(
                layout, lambda k, r: op.segment_input_gradient(grad[r], x[r], copies(k), layout.segments[k])
            )
        if ctx.needs_input_grad[4]:
            grad_weight = op.weight_gradient(grad, x, weight)
        return None, None, None, grad_x, grad_weight
