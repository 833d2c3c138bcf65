"""Find the classifier inside a model by running it, and tap the features that enter it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn as nn
from torch import Tensor

from .heads import Head

# Largest difference, relative to the largest logit, between two orders of summation in the type of the product.
# float32 leaves room for TF32, which GPUs use for float32 matrices.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class ClassifierHead:
    """The layer whose output is the model's logits, and its name in `model.named_modules()`.

    Whoever computes with `module.weight` itself must look at `kind` first; `module.forward(z)` works for every kind.
    """

    name: str
    module: nn.Linear | Head

    @property
    def kind(self) -> str:
        """ "linear", or the key of `HEADS` under which `replace_classifier` put the layer there."""
        return self.module.kind if isinstance(self.module, Head) else "linear"


@dataclass
class _Calls:
    """What a layer was given and returned in one forward pass: the last call, and how many there were."""

    inputs: Tensor
    outputs: Tensor
    count: int = 1


def find_classifier(model: nn.Module, batch: Mapping[str, Any]) -> ClassifierHead:
    """The one `nn.Linear` (or replaced classifier) whose output is the model's logits, found by running the model.

    It is called once per forward pass, has as many outputs as the logits have columns, W z + b of its input z equals
    the logits both in evaluation and in training mode, and what is added to its output is added to the logits. For a
    classifier that `replace_classifier` put there, its own function of z takes the place of W z + b.

    The model is run twice without gradients and left as it was: buffers (bitwise), training flags, and the torch
    random states of the CPU and of the model's GPU. With PEFT, the active copy of a head in `modules_to_save` is found.

    batch: the model's arguments without labels, on the model's device; at least two samples where batch
        normalisation needs them.

    ValueError: there is no such layer; the message says why.
    """
    with torch.no_grad(), _undisturbed(model):
        model.eval()
        logits, calls = _run(model, batch)
        head = _matching_head(model, logits, calls)
        model.train()
        _check_logits_follow(model, batch, head, [name for name in calls if name != head.name])
    return head


class FeatureTap:
    """Captures the classifier's input z [B, d] in every forward pass, with its graph.

    Register it before the first call of a compiled model: a hook that comes later is missed without a word. Clear it
    at the beginning of a step, so that a pass that does not reach the classifier is noticed. Under autocast the
    captured features may be bfloat16 while the logits are float32.
    """

    def __init__(self, module: nn.Module) -> None:
        self._features: Tensor | None = None
        self._handle = module.register_forward_pre_hook(self._capture)

    def _capture(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._features = args[0]

    @property
    def features(self) -> Tensor:
        """The input of the last forward pass since `clear()`."""
        if self._features is None:
            raise RuntimeError(
                "No features were captured: the classifier did not run since the last clear(), or the model was "
                "compiled before the tap was registered. Register the tap before the first forward pass."
            )
        return self._features

    def clear(self) -> None:
        self._features = None

    def remove(self) -> None:
        """Take the hook off the module; safe to repeat."""
        self._handle.remove()
        self.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Training flags, buffers and random states come back as they were."""
    flags = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        for module, training in flags:
            module.training = training
        for buffer, before in buffers:
            buffer.copy_(before)


def _run(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, _Calls]]:
    """Logits [B, C], and the calls of every `nn.Linear` and `Head` that returned a matrix.

    Layers that work on tokens return more dimensions; not keeping those saves the activations' memory.
    """
    calls: dict[str, _Calls] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Head):
            handles.append(module.register_forward_hook(_recorder(calls, name)))
    try:
        return _logits(model(**batch)), calls
    finally:
        for handle in handles:
            handle.remove()


def _recorder(calls: dict[str, _Calls], name: str) -> Any:
    def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if args and output.ndim == 2:
            count = calls[name].count + 1 if name in calls else 1
            calls[name] = _Calls(args[0], output, count)

    return record


def _logits(outputs: Any) -> Tensor:
    if isinstance(outputs, Mapping):
        outputs = outputs.get("logits")
    elif isinstance(outputs, tuple | list):
        outputs = outputs[0]
    if not isinstance(outputs, Tensor):
        raise ValueError("The model returns no logits: use a model for classification.")
    if outputs.ndim != 2:
        shape = tuple(outputs.shape)
        raise ValueError(f"The model's logits have shape {shape}, not (batch, classes): use one label per sample.")
    if not outputs.isfinite().all():
        raise ValueError("The model's logits on the first batch are not finite: check its weights and the images.")
    return outputs


def _matching_head(model: nn.Module, logits: Tensor, calls: dict[str, _Calls]) -> ClassifierHead:
    modules = dict(model.named_modules())
    as_wide = {name: call for name, call in calls.items() if call.outputs.shape == logits.shape}
    heads = [name for name, call in as_wide.items() if _reproduces(modules[name], call, logits)]
    if len(heads) != 1:
        raise ValueError(_reason(model, logits.shape[1], list(as_wide), heads))
    (name,) = heads
    if as_wide[name].count > 1:
        raise ValueError(f"The classifier {name!r} runs {as_wide[name].count} times in a forward pass, not once.")
    module = modules[name]
    assert isinstance(module, nn.Linear | Head)
    return ClassifierHead(name, module)


def _reason(model: nn.Module, num_classes: int, as_wide: list[str], heads: list[str]) -> str:
    remedy = "Use a model whose logits are the output of one nn.Linear."
    if len(heads) > 1:
        return f"The classifier is ambiguous: {', '.join(heads)} all equal the logits. {remedy}"
    if as_wide:
        return (
            f"The logits of {type(model).__name__} are not the output of one linear layer: {', '.join(as_wide)} have "
            f"{num_classes} outputs, but W z + b differs from the logits (several heads averaged, scaled logits, or "
            f"an adapter on the head). {remedy}"
        )
    return (
        f"{type(model).__name__} has no nn.Linear that ran with {num_classes} outputs per sample (a head that is "
        f"convolutional, works on each token, or is a custom layer). {remedy}"
    )


def _reproduces(module: nn.Module, call: _Calls, logits: Tensor, shift: Tensor | None = None) -> bool:
    assert isinstance(module, nn.Linear | Head)
    # Not the call itself, which would run the hooks of adapters and of this module again.
    forward: Any = nn.Linear.forward if isinstance(module, nn.Linear) else type(module).forward
    product = forward(module, call.inputs.to(module.weight.dtype))
    expected = product.double() if shift is None else product.double() + shift.double()
    coarser = max(TOLERANCE[call.outputs.dtype], TOLERANCE[logits.dtype])
    return bool((expected - logits.double()).abs().max() <= coarser * expected.abs().max())


def _check_logits_follow(model: nn.Module, batch: Mapping[str, Any], head: ClassifierHead, others: list[str]) -> None:
    """In training mode, W z + b + r equals the logits when r is added to the head's output and 3 r to others as wide.

    The shifts tell a head that was initialised with zeros from one whose output is scaled or averaged, and find the
    adapter beside a head that adds nothing yet.
    """
    width = head.module.out_features
    shift = 1 + torch.arange(width, device=head.module.weight.device) % 7
    seen: list[_Calls] = []

    def shift_head(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(_Calls(args[0], output))
        return output + shift.to(output.dtype)

    def shift_other(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + 3 * shift.to(output.dtype) if output.shape[-1] == width else output

    handles = [model.get_submodule(name).register_forward_hook(shift_other) for name in others]
    handles.append(head.module.register_forward_hook(shift_head))
    try:
        logits = _logits(model(**batch))
    finally:
        for handle in handles:
            handle.remove()
    if len(seen) != 1 or not _reproduces(head.module, seen[0], logits, shift):
        raise ValueError(
            f"The logits are not the output of {head.name!r} alone, although they equal it in evaluation mode: in "
            "training, or when the layer's output changes, they differ (scaled logits, dropout on the logits, or an "
            "adapter on the head). Use a model whose logits are the output of one nn.Linear."
        )
