"""Loss against the noise norm ratio ‖ε‖/‖θ‖ (Fig. 1 of Zhou et al., CVPR 2023)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .budget import AnalysisSettings, Sizes, required
from .objective import Objective, losses_at, unit_directions, weighted_sums
from .problem import AnalysedNetwork
from .saved_results import Keep, compute_anew, under

# 25 levels in each of the two ranges and 5 directions: the features make more of them almost free.
CLASSIFIER_SIZES = {"levels": 25, "seeds": 5}


def noise_name(scope: str, direction: str) -> str:
    """Name of a noise curve's files: ``noise-last-1-random`` for the scope last:1."""
    return f"noise-{re.sub(r'[^A-Za-z0-9_.]+', '-', scope).strip('-')}-{direction}"


def noise_ratios(largest: float, number: int) -> Tensor:
    """``number`` ratios ‖ε‖/‖θ‖ from 0 to ``largest``, [R]; the first is the loss without noise."""
    if not (math.isfinite(largest) and largest > 0):
        raise ValueError(
            f"The noise range 0..{largest} is empty or negative; give --noise_range a positive ratio, such as 1.0."
        )
    if number < 2:
        raise ValueError(f"A noise curve needs at least 2 levels, got {number}; raise --levels.")
    return torch.linspace(0, largest, number, dtype=torch.float64)


def noise_losses(objective: Objective, ratios: Tensor, directions: Tensor, keep: Keep = compute_anew) -> Tensor:
    """Group losses at θ + r‖θ‖u for each ratio r [R] and unit direction u [S, k]; [R, S, G] in float64."""
    norm = objective.weight_norm

    def theta(ratio: float, unit: Tensor) -> Tensor:
        return objective.start + ratio * norm * unit

    pairs = product(ratios.tolist(), directions)
    points = [(f"point {place}", partial(theta, ratio, unit)) for place, (ratio, unit) in enumerate(pairs)]
    return losses_at(objective, points, keep, "noisy weights").view(len(ratios), len(directions), -1)


def worst_directions(objective: Objective) -> Tensor:
    """u_g = ∇L_g/‖∇L_g‖ for each group, [G, k]: the direction in which the loss rises fastest; 0 where ∇L_g = 0."""
    gradients = torch.stack([objective.gradient(weights) for weights in objective.groups.values()])
    return gradients / gradients.norm(dim=1, keepdim=True).clamp(min=torch.finfo(gradients.dtype).tiny)


@torch.no_grad()
def classifier_noise_losses(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: Mapping[str, Tensor],
    ratios: Tensor,
    directions: Tensor,
    chunk: int = 500,
) -> Tensor:
    """`noise_losses` of a linear classifier on features [N, d] that are computed once; [R, S, G].

    Logits are linear in the weights, so that (W + rE)z + b + re = (Wz + b) + r(Ez + e): one product for each
    direction, and every further level costs one softmax. ``directions`` [S, k] lays out W [C, d] before b [C].
    """
    classes, width = weight.shape
    norm = math.hypot(float(weight.double().norm()), 0.0 if bias is None else float(bias.double().norm()))
    noise_weight = directions[:, : classes * width].reshape(-1, width)
    noise_bias = None if bias is None else directions[:, classes * width :].reshape(-1)
    totals = torch.zeros(len(ratios), len(directions), len(groups), dtype=torch.float64, device=features.device)
    mixing = torch.stack(list(groups.values()))
    for index in torch.arange(len(labels), device=features.device).split(chunk):
        logits = F.linear(features[index], weight, bias)
        shift = F.linear(features[index], noise_weight, noise_bias).view(len(index), -1, classes) * norm
        targets = labels[index, None].expand(-1, shift.shape[1])
        for level, ratio in enumerate(ratios.tolist()):
            noisy = torch.add(logits[:, None], shift, alpha=ratio)
            losses = noisy.logsumexp(2) - noisy.gather(2, targets[..., None]).squeeze(2)
            totals[level] += weighted_sums(mixing[:, index], losses.T)
    return totals


def measure_noise(
    network: AnalysedNetwork,
    scope: str,
    direction: str,
    settings: AnalysisSettings,
    sizes: Sizes,
    keep: Keep = compute_anew,
) -> dict[str, Any]:
    """Loss against ‖ε‖/‖θ‖ for each group: {"ratios": {range: [R]}, "losses": {range: {group: [R][S]}}}."""
    objective = network.objective(scope)
    largest = {"global": settings.noise_range, "local": settings.local_range}
    ratios = {name: noise_ratios(value, required(sizes.levels)) for name, value in largest.items()}
    curves: dict[str, dict[str, Tensor]] = {}
    together = torch.cat(list(ratios.values()))
    if direction == "random":
        units = unit_directions(required(sizes.seeds), objective.start, settings.seed)
        values = _curves(network, scope, objective, together, units, keep)
    else:
        values = _worst_curves(network, scope, objective, together, keep)
    for name, part in zip(ratios, values.split([len(r) for r in ratios.values()]), strict=True):
        curves[name] = {group: part[:, :, place] for place, group in enumerate(objective.groups)}
    return {
        "ratios": ratios,
        "losses": curves,
        "masked": int((~values.isfinite()).sum()),
        "weight_norm": objective.weight_norm,
        "num_parameters": objective.num_parameters,
    }


def _curves(
    network: AnalysedNetwork, scope: str, objective: Objective, ratios: Tensor, units: Tensor, keep: Keep
) -> Tensor:
    """[R, S, G] by whichever way is the cheaper."""
    layer = network.linear if scope == "classifier" else None
    if layer is None:
        return noise_losses(objective, ratios, units, keep)
    labels = network.labels.to(network.device)
    return classifier_noise_losses(network.features, labels, layer.weight, layer.bias, objective.groups, ratios, units)


def _worst_curves(network: AnalysedNetwork, scope: str, objective: Objective, ratios: Tensor, keep: Keep) -> Tensor:
    """Each group along its own gradient, on its own samples, [R, 1, G]."""
    columns = []
    for (name, weights), unit in zip(objective.groups.items(), worst_directions(objective), strict=True):
        alone = replace(objective, groups={name: weights})
        columns.append(_curves(network, scope, alone, ratios, unit[None], under(name, keep)))
    return torch.cat(columns, dim=2)
