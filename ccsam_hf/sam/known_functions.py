"""The torch functions whose parameters may differ from sample to sample, and what becomes of them.

Each handler has the signature of the function it stands for, after the pass that is running. A layer enters here,
not by its module class, but by what it calls: timm's and transformers' own layers need no entry of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .copied_layers import Convolution, Linear, LinearMap
from .copied_norms import fixed_batch_norm


class Pass(Protocol):
    """A forward pass in which every sample may have its own parameters."""

    batch_size: int

    def is_perturbed(self, parameter: Any) -> bool: ...

    def layer(self, op: LinearMap, x: Tensor, weight: Tensor) -> Tensor: ...

    def per_sample(self, parameter: Tensor) -> Tensor: ...

    def batch_norm(self, x: Tensor, settings: tuple[Any, ...], weight: Any, bias: Any) -> Tensor: ...


class UnknownUse(Exception):
    """The reason why a use of a perturbed parameter is not understood."""


def _require_batch(run: Pass, x: Tensor) -> None:
    if run.is_perturbed(x) or x.dim() < 2 or x.shape[0] != run.batch_size:
        raise UnknownUse(f"its input of shape {tuple(x.shape)} does not begin with the {run.batch_size} samples")


def _mapped(run: Pass, op: LinearMap, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    _require_batch(run, x)
    y = run.layer(op, x, weight) if run.is_perturbed(weight) else op.output(x, weight)
    if bias is None:
        return y
    shape = op.bias_shape(y)
    if run.is_perturbed(bias):
        return y + run.per_sample(bias).view(-1, *shape)
    return y + bias.view(shape)


def linear(run: Pass, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _mapped(run, Linear(), input, weight, bias)


def convolution(
    run: Pass,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    space = weight.dim() - 2
    if input.dim() != weight.dim():
        raise UnknownUse(f"its input of shape {tuple(input.shape)} has no batch dimension")
    stride, dilation = _per_axis(stride, space), _per_axis(dilation, space)
    if isinstance(padding, str):
        padding = _named_padding(padding, weight.shape[2:], dilation)
    op = Convolution(stride, _per_axis(padding, space), dilation, groups)
    return _mapped(run, op, input, weight, bias)


def _per_axis(value: Any, space: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * space if len(values) == 1 else values


def _named_padding(padding: str, kernel: Any, dilation: tuple[int, ...]) -> tuple[int, ...]:
    if padding == "valid":
        return (0,) * len(kernel)
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(t % 2 for t in total):
        raise UnknownUse(f"padding='same' of a kernel of shape {tuple(kernel)} is not symmetric")
    return tuple(t // 2 for t in total)


def batch_norm(
    run: Pass,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    own = run.is_perturbed(weight) or run.is_perturbed(bias)
    if own:
        _require_batch(run, input)
    if training:
        return run.batch_norm(input, (running_mean, running_var, momentum, eps), weight, bias)
    if not own:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    assert running_mean is not None
    assert running_var is not None
    if weight is not None and run.is_perturbed(weight):
        weight = run.per_sample(weight)
    if bias is not None and run.is_perturbed(bias):
        bias = run.per_sample(bias)
    return fixed_batch_norm(input, weight, bias, running_mean, (running_var + eps).rsqrt())


def layer_norm(
    run: Pass,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _affine(run, F.layer_norm(input, normalized_shape, None, None, eps), weight, bias, trailing=True)


def rms_norm(
    run: Pass, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    return _affine(run, F.rms_norm(input, normalized_shape, None, eps), weight, None, trailing=True)


def group_norm(
    run: Pass,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return _affine(run, F.group_norm(input, num_groups, None, None, eps), weight, bias, trailing=False)


def _affine(run: Pass, x: Tensor, weight: Tensor | None, bias: Tensor | None, trailing: bool) -> Tensor:
    """x · weight + bias, the parameters along the last axes of x or along its channels."""
    _require_batch(run, x)

    def shaped(parameter: Tensor) -> Tensor:
        ones = [1] * (x.dim() - 1 - parameter.dim())
        shape = (*ones, *parameter.shape) if trailing else (*parameter.shape, *ones)
        if run.is_perturbed(parameter):
            return run.per_sample(parameter).view(-1, *shape)
        return parameter.view(shape)

    y = x if weight is None else x * shaped(weight)
    return y if bias is None else y + shaped(bias)


def elementwise(run: Pass, func: Callable[..., Tensor], first: Any, second: Any, **options: Any) -> Tensor:
    """A sum or product of a parameter and a tensor of samples, as position embeddings and layer scales are."""
    operands = [first, second]
    own = [run.is_perturbed(operand) for operand in operands]
    if all(own) or not all(isinstance(operand, Tensor) for operand in operands):
        raise UnknownUse("its other operand is not a tensor of samples")
    k = own.index(True)
    samples = operands[1 - k]
    _require_batch(run, samples)
    operands[k] = _aligned(run, operands[k], samples)
    return func(*operands, **options)


def _aligned(run: Pass, parameter: Tensor, samples: Tensor) -> Tensor:
    missing = samples.dim() - 1 - parameter.dim()
    if missing >= 0:
        return run.per_sample(parameter).view(-1, *[1] * missing, *parameter.shape)
    if missing == -1 and parameter.shape[0] == 1:
        return run.per_sample(parameter).squeeze(1)
    raise UnknownUse(f"its shape {tuple(parameter.shape)} has a batch dimension of its own")


def expand(run: Pass, input: Tensor, *sizes: Any) -> Tensor:
    """A parameter of shape [1, ...] repeated for every sample, as class tokens are."""
    wanted = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    if input.shape[0] != 1 or len(wanted) != input.dim() or wanted[0] != run.batch_size:
        raise UnknownUse(f"{tuple(input.shape)} to {tuple(wanted)} does not repeat it once a sample")
    return run.per_sample(input).squeeze(1).expand(wanted)


HANDLERS: dict[Any, Callable[..., Tensor]] = {
    F.linear: linear,
    F.conv1d: convolution,
    F.conv2d: convolution,
    F.conv3d: convolution,
    F.batch_norm: batch_norm,
    F.layer_norm: layer_norm,
    F.group_norm: group_norm,
    F.rms_norm: rms_norm,
    Tensor.expand: expand,
}
ELEMENTWISE = {
    *(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__),
    *(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.mul_, Tensor.__imul__),
}
# Batch statistics that do not come through F.batch_norm cannot be held fixed.
REFUSED = {torch.batch_norm, torch.native_batch_norm}


def handle(run: Pass, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The result of a function whose perturbed parameters differ between samples.

    Raises UnknownUse where the function, or the shape in which it gets them, is not known to treat samples apart.
    """
    if func in ELEMENTWISE:
        return elementwise(run, func, *args, **kwargs)
    if func not in HANDLERS:
        raise UnknownUse("the function is not known to treat every sample apart")
    return HANDLERS[func](run, *args, **kwargs)
