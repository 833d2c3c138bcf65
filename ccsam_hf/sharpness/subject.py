"""A classifier and its analysed images, as objectives over the classifier, the last stage or all weights."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ccsam_hf.models import FeatureTap, find_classifier
from ccsam_hf.sharpness.guard import batch_norms, estimated_statistics
from ccsam_hf.sharpness.objective import Objective, SampleLosses, flatten, unflatten
from ccsam_hf.sharpness.radii import Loss
from ccsam_hf.sharpness.scopes import scope_names
from ccsam_hf.sharpness.store import fingerprint


def wrong_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """1 − p(label), [B]: the error of the classifier that draws its answer from its softmax; in [0, 1], smooth."""
    return -torch.expm1(-F.cross_entropy(logits, labels, reduction="none"))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """−log p(label), [B]."""
    return F.cross_entropy(logits, labels, reduction="none")


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode (inside `untouched`), images [N, ...] and labels [N], and weights of each group.

    ``recalibrate`` re-estimates BatchNorm's running statistics on the images at every weight vector whose loss is
    taken; False keeps the checkpoint's. ``last_stage`` names the module where the scope "last_stage" begins.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    groups: Mapping[str, Tensor]
    batch_size: int = 125
    recalibrate: bool = False
    last_stage: str | None = None

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
                f"{error} Or leave classifier out of --scopes and set --radius_scope last_stage or all, which need no "
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
        names = scope_names(self.model, scope, self.classifier if scope == "classifier" else None, self.last_stage)
        own = dict(self.model.named_parameters())
        parameters = {name: own[name] for name in names}
        labels = self.labels.to(self.device)

        def on_features(theta: Tensor) -> SampleLosses:
            layer, prefix = self.model.get_submodule(self.classifier), f"{self.classifier}."
            state = {name.removeprefix(prefix): piece for name, piece in unflatten(theta, shapes).items()}
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
