"""A classifier, its images and the groups of classes, as losses over weights; class gradients."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from ..models import FeatureTap, find_classifier
from ..models.blocks import parameter_blocks
from ..sam import Scope, blocks_of_modules
from .objective import Objective, SampleLosses, flatten, unflatten
from .saved_results import Keep, compute_anew, fingerprint

Loss = Callable[[Tensor, Tensor], Tensor]
LoadModel = Callable[[], nn.Module]


def wrong_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """1 − p(label), [B]: the error of the classifier that draws its answer from its softmax; in [0, 1], smooth."""
    return -torch.expm1(-F.cross_entropy(logits, labels, reduction="none"))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """−log p(label), [B]."""
    return F.cross_entropy(logits, labels, reduction="none")


@dataclass(frozen=True)
class AnalysedNetwork:
    """A model in evaluation mode (inside `untouched`), images [N, ...] and labels [N], and weights of each group.

    ``recalibrate`` re-estimates BatchNorm's running statistics on the images at every weight vector whose loss is
    taken; False keeps the checkpoint's.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    groups: Mapping[str, Tensor]
    batch_size: int = 125
    recalibrate: bool = False

    def __post_init__(self) -> None:
        dtypes = {parameter.dtype for parameter in self.model.parameters()}
        if not dtypes <= {torch.float32, torch.float64}:
            raise ValueError("Small perturbations vanish in half precision; convert the model with model.float().")
        if self.recalibrate and not batch_norms(self.model):
            raise ValueError(
                f"--recalibrate_bn has no effect: {type(self.model).__name__} has no BatchNorm layer with running "
                "statistics; leave the option out."
            )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @cached_property
    def classifier(self) -> str:
        """Name of the layer whose output is the logits: linear, or one that took its place."""
        argument = next(iter(inspect.signature(self.model.forward).parameters))
        batch = {argument: self.batch(torch.arange(min(4, len(self.labels))))}
        try:
            return find_classifier(self.model, batch).name
        except ValueError as error:
            raise ValueError(
                f"{error} Or leave classifier and last:N out of --scopes and set --radius_scope all, which needs no "
                "such layer."
            ) from error

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """BatchNorm buffers at the analysed weights, where re-estimated; empty: the checkpoint's own."""
        return self._statistics_at({}) if self.recalibrate else {}

    def _statistics_at(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        indices = torch.arange(len(self.labels)).split(self.batch_size)
        return estimated_statistics(self.model, parameters, [self.batch(index) for index in indices])

    def batch(self, index: Tensor) -> Tensor:
        """Images of these samples on the model's device and in its precision."""
        return as_inputs(self.images[index.to(self.images.device)], self.model)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the images and labels."""
        return fingerprint({"images": self.images, "labels": self.labels})

    @cached_property
    def features(self) -> Tensor:
        """The classifier's inputs [N, d], computed once."""
        captured = []
        with torch.no_grad(), FeatureTap(self.model.get_submodule(self.classifier)) as tap:
            for index in torch.arange(len(self.labels)).split(self.batch_size):
                tap.clear()
                functional_call(self.model, self.statistics, (self.batch(index),))
                captured.append(tap.features)
        return torch.cat(captured)

    @property
    def linear(self) -> nn.Linear | None:
        """The classifier where it is W z + b; None where another function of the features took its place."""
        layer = self.model.get_submodule(self.classifier)
        return layer if isinstance(layer, nn.Linear) else None

    def objective(self, scope: str, loss: Loss = cross_entropy) -> Objective:
        """The mean losses as a function of the scope's weights; the classifier's runs on `features`."""
        needs_classifier = scope == "classifier" or scope.startswith("last:")
        names = scope_names(self.model, scope, self.classifier if needs_classifier else None)
        own = dict(self.model.named_parameters())
        parameters = {name: own[name] for name in names}
        labels = self.labels.to(self.device)

        def on_features(theta: Tensor) -> SampleLosses:
            layer, prefix = self.model.get_submodule(self.classifier), f"{self.classifier}."
            state = {name.removeprefix(prefix): tensor for name, tensor in unflatten(theta, shapes).items()}
            return lambda index: loss(functional_call(layer, state, (self.features[index],)), labels[index])

        def through_model(theta: Tensor, statistics: dict[str, Tensor]) -> SampleLosses:
            state = {**unflatten(theta, shapes), **statistics}
            return lambda index: loss(
                logits_of(functional_call(self.model, state, (self.batch(index),))), labels[index]
            )

        def recalibrated(theta: Tensor) -> SampleLosses:
            return through_model(theta, self._statistics_at(unflatten(theta, shapes)))

        shapes = {name: parameter.shape for name, parameter in parameters.items()}
        at = on_features if scope == "classifier" else lambda theta: through_model(theta, self.statistics)
        return Objective(
            at=at,
            start=flatten(parameters),
            groups={name: weights.to(self.device) for name, weights in self.groups.items()},
            batch_size=self.batch_size if scope != "classifier" else 10 * self.batch_size,
            recalibrated_at=recalibrated if self.recalibrate and scope != "classifier" else None,
            shapes=shapes,
            replicate=None if scope == "classifier" else partial(self._replica, scope, loss),
        )

    def class_gradients(
        self, scope: str, loss: Loss, num_classes: int, keep: Keep = compute_anew
    ) -> tuple[Tensor, Tensor]:
        """Mean losses and gradient norms of the classes, [C] each, by whichever way is the cheaper."""
        layer = self.linear if scope == "classifier" else None
        if layer is None:
            return class_gradient_norms(self.objective(scope, loss), self.labels, num_classes, keep)
        labels = self.labels.to(self.device)
        return linear_class_gradient_norms(self.features, labels, layer.weight, layer.bias, loss, num_classes)

    def _replica(self, scope: str, loss: Loss) -> Objective:
        """The same objective on a copy of the network, as a thread of its own needs it: the call swaps parameters."""
        return replace(self, model=copy.deepcopy(self.model)).objective(scope, loss)


def as_inputs(images: Tensor, model: nn.Module) -> Tensor:
    """Images on the model's device, in its precision and with channels last."""
    images = images.to(next(model.parameters()))
    # About a third faster in convolutions on the CPU; other layers accept it.
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def logits_of(outputs: Any) -> Tensor:
    """The logits of a timm model (a tensor) or a transformers model (an output with `logits`)."""
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError("The model returns no logits of shape (images, classes); use a model for classification.")
    return logits


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients inside; afterwards everything is back, bit for bit.

    Everything: parameters, buffers, `.grad`, training flags, `requires_grad` and BatchNorm momenta.
    """
    saved = [(tensor, tensor.detach().clone()) for tensor in chain(model.parameters(), model.buffers())]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    momenta = [(module, module.momentum) for module in batch_norms(model).values()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in saved:
                tensor.copy_(before)
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)
        for module, training in modes:
            module.training = training
        for norm, momentum in momenta:
            norm.momentum = momentum


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """BatchNorm layers that keep running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@torch.no_grad()
def estimated_statistics(model: nn.Module, parameters: dict[str, Tensor], batches: list[Tensor]) -> dict[str, Tensor]:
    """BatchNorm buffers re-estimated at other weights: plain means over ``batches`` of images, a new dictionary.

    ``parameters`` stand in for the model's own; the model's buffers are not written. Dropout stays off.
    """
    norms = batch_norms(model)
    statistics = {}
    for name, norm in norms.items():
        prefix = f"{name}." if name else ""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        statistics[f"{prefix}running_mean"] = torch.zeros_like(norm.running_mean)
        statistics[f"{prefix}running_var"] = torch.ones_like(norm.running_var)
        statistics[f"{prefix}num_batches_tracked"] = torch.zeros((), dtype=torch.long, device=norm.running_mean.device)
    momenta = {name: norm.momentum for name, norm in norms.items()}
    for norm in norms.values():
        norm.momentum = None  # the mean over all batches instead of a moving one
        norm.training = True
    for images in batches:
        functional_call(model, {**parameters, **statistics}, (images,))
    for name, norm in norms.items():
        norm.momentum = momenta[name]
        norm.training = False
    return statistics


def scope_names(model: nn.Module, scope: str, classifier: str | None = None) -> list[str]:
    """Names of the parameters that a scope of `Scope` selects, in the model's order, frozen ones included.

    Blocks are the model's `outer_blocks`, which every library's models have, or else those that timm names. (timm
    counts a Swin transformer's final norm as a block of its own.)
    """
    chosen = Scope.parse(scope)
    blocks = None
    if chosen.kind == "last":
        try:
            blocks = blocks_of_modules(model, outer_blocks(model))
        except ValueError:
            blocks = parameter_blocks(model)
            if blocks is None:
                raise
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        return list(chosen.select(model, classifier, blocks))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def outer_blocks(model: nn.Module) -> list[str]:
    """The outermost repeated blocks: `layer1` to `layer4` of a ResNet, each block of a transformer.

    Going down from the root, through modules with a single child that holds a list of blocks, until there are several
    such children or the list itself is reached. A list is an `nn.Sequential` or `nn.ModuleList` of at least two
    blocks: parametrised elements with children of their own.
    """
    name, module = "", model
    while True:
        children = [(key, child) for key, child in module.named_children() if _parametrised(child)]
        if _is_list(module):
            return [f"{name}{key}" for key, _ in children]
        holders = [(key, child) for key, child in children if any(_is_list(inner) for inner in child.modules())]
        if not holders:
            raise ValueError(
                f"{type(model).__name__} has no list of blocks, of which the scope last:N could take the last; name "
                "the parameters instead (names:PATTERN)."
            )
        if len(holders) > 1:
            return [f"{name}{key}" for key, _ in holders]
        name, module = f"{name}{holders[0][0]}.", holders[0][1]


def _parametrised(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _is_list(module: nn.Module) -> bool:
    blocks = [child for child in module.children() if _parametrised(child) and any(True for _ in child.children())]
    return isinstance(module, nn.Sequential | nn.ModuleList) and len(blocks) > 1


def class_gradient_norms(
    objective: Objective, labels: Tensor, num_classes: int, keep: Keep = compute_anew
) -> tuple[Tensor, Tensor]:
    """Mean loss L_c and ‖g_c‖ = ‖∇_θ L_c‖ for each class, [C] and [C] in float64; NaN for a class without samples."""
    losses = objective.losses(objective.start).double().cpu()
    labels = labels.cpu()
    means = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    norms = means.clone()

    def norm(inside: Tensor) -> float:
        weights = (inside.double() / inside.sum()).to(objective.start.device)
        return float(objective.gradient(weights).double().norm())

    for label in tqdm(range(num_classes), desc="class gradients", leave=False, disable=None):
        inside = labels == label
        if inside.any():
            means[label] = losses[inside].mean()
            norms[label] = keep(f"class {label}", partial(norm, inside))
    return means, norms


def linear_class_gradient_norms(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, loss: Loss, num_classes: int
) -> tuple[Tensor, Tensor]:
    """`class_gradient_norms` of a linear classifier without ever forming a gradient of C x d numbers.

    ‖g_c‖² = m⁻² Σ_ij ⟨δ_i, δ_j⟩ (⟨z_i, z_j⟩ + [bias]) over the m samples of class c, δ_i = ∂l_i/∂logits_i.
    """
    means = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    norms = means.clone()
    for label in labels.unique().tolist():
        inside = labels == label
        inputs = features[inside].double()
        shift = None if bias is None else bias.double()
        logits = F.linear(inputs, weight.double(), shift).detach().requires_grad_()
        losses = loss(logits, labels[inside])
        (residuals,) = torch.autograd.grad(losses.sum(), logits)
        gram = inputs @ inputs.T + (bias is not None)
        means[label] = losses.detach().mean()
        norms[label] = ((residuals @ residuals.T) * gram).sum().clamp(min=0).sqrt() / len(inputs)
    return means, norms
