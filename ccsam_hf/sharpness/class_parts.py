"""The parts that rest on class gradients: characteristic radii and bounds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ccsam_hf.sam.radius import characteristic_radius
from ccsam_hf.sharpness.bounds import certified_bound, printed_bound
from ccsam_hf.sharpness.groups import ALL
from ccsam_hf.sharpness.objective import Objective
from ccsam_hf.sharpness.pieces import Keep, compute_anew
from ccsam_hf.sharpness.radii import Loss, class_gradient_norms, few_over_many, linear_class_gradient_norms
from ccsam_hf.sharpness.settings import AnalysisSettings
from ccsam_hf.sharpness.subject import Subject, cross_entropy, wrong_probability
from ccsam_hf.training.meters import rank_correlation

# Gaussian draws for the averaged empirical risk of the certified bound, and its widths as ratios √k ρ/‖w‖.
BOUND_DRAWS, BOUND_RATIOS = 100, (0.1, 0.3, 1.0, 3.0, 10.0)


def radii_part(
    subject: Subject, settings: AnalysisSettings, class_counts: Tensor, keep: Keep = compute_anew
) -> dict[str, Any]:
    """Class gradient norms, ρ_c (Eq. 8) and ‖ε_c‖/‖w‖ = √k ρ_c/‖w‖ (Eq. 9), for the classes with samples."""
    objective = subject.objective(settings.radius_scope)
    losses, norms = _class_gradients(subject, objective, settings, cross_entropy, len(class_counts), keep)
    radii = characteristic_radius(objective.weight_norm, norms, objective.num_parameters, class_counts.double())
    relative = objective.num_parameters**0.5 * radii / objective.weight_norm
    masks = settings.thresholds.masks(class_counts)
    known = relative.isfinite()
    return {
        "class_counts": class_counts,
        "loss": losses,
        "gradient_norm": norms,
        "radius": radii,
        "relative_radius": relative,
        "weight_norm": objective.weight_norm,
        "num_parameters": objective.num_parameters,
        "few_over_many": few_over_many(relative, masks),
        "rank_correlation": rank_correlation(relative[known], class_counts[known].double()),
        "gradient_few_over_many": few_over_many(norms, masks),
        "gradient_rank_correlation": rank_correlation(norms[known], class_counts[known].double()),
        "zero_gradients": int((norms == 0).sum()),
    }


def _class_gradients(
    subject: Subject, objective: Objective, settings: AnalysisSettings, loss: Loss, num_classes: int, keep: Keep
) -> tuple[Tensor, Tensor]:
    """Mean losses and gradient norms of the classes by whichever way is the cheaper."""
    layer = subject.linear if settings.radius_scope == "classifier" else None
    if layer is None:
        return class_gradient_norms(objective, subject.labels, num_classes, keep)
    labels = subject.labels.to(subject.device)
    return linear_class_gradient_norms(subject.features, labels, layer.weight, layer.bias, loss, num_classes)


def bound_part(
    subject: Subject, settings: AnalysisSettings, class_counts: Tensor, keep: Keep = compute_anew
) -> dict[str, Any]:
    """The bound as printed, per class (Eq. 7) and overall (Eq. 5), and the certified bound, with 1 − p(label)."""
    objective = subject.objective(settings.radius_scope, wrong_probability)
    losses, norms = _class_gradients(subject, objective, settings, wrong_probability, len(class_counts), keep)
    known = losses.isfinite() & (class_counts > 0)
    weights = objective.groups[ALL]
    overall_loss = objective.group_losses(objective.start)[list(objective.groups).index(ALL)].cpu()
    overall_norm = objective.gradient(weights).double().norm().cpu()
    bound = printed_bound(
        torch.cat([overall_loss[None], losses[known]]).clamp(0, 1),
        torch.cat([overall_norm[None], norms[known]]),
        objective.weight_norm,
        objective.num_parameters,
        torch.cat([class_counts.sum()[None], class_counts[known]]),
        settings.delta,
    )
    fields = ("value", "radius", "relative_radius", "complexity", "needed_ratio")
    rows = {name: getattr(bound, name) for name in fields}
    return {
        "classes": known.nonzero().squeeze(1),
        "class_counts": class_counts[known],
        "loss": losses[known],
        "gradient_norm": norms[known],
        "overall": {
            "loss": float(overall_loss),
            "gradient_norm": float(overall_norm),
            **{name: float(row[0]) for name, row in rows.items()},
        },
        "per_class": {name: row[1:] for name, row in rows.items()},
        "class_mean": float(bound.value[1:].mean()),
        "certified": _certified(subject, objective, settings, class_counts, keep),
        "weight_norm": objective.weight_norm,
        "num_parameters": objective.num_parameters,
        "delta": settings.delta,
    }


def _certified(
    subject: Subject, objective: Objective, settings: AnalysisSettings, class_counts: Tensor, keep: Keep
) -> dict[str, Any]:
    """The corollary's bound overall, on the widths of `BOUND_RATIOS`; only where all samples of the split are at hand.

    It speaks of the mean over *all* n samples, of which a subset is not the sample that was trained on.
    """
    if not torch.equal(torch.bincount(subject.labels.cpu(), minlength=len(class_counts)), class_counts):
        return {"reason": "needs every training sample; raise --samples to the size of the training set"}
    if settings.radius_scope != "classifier":
        return {"reason": "computed for --radius_scope classifier only: each draw of other weights costs a pass"}
    widths = torch.tensor(BOUND_RATIOS, dtype=torch.float64) * objective.weight_norm / objective.num_parameters**0.5
    everything = replace(objective, groups={ALL: objective.groups[ALL]})
    generator = torch.Generator().manual_seed(settings.seed + 1)
    draws = torch.randn(BOUND_DRAWS, objective.num_parameters, generator=generator).to(objective.start)

    def mean(width: float) -> float:
        return float(torch.stack([everything.group_losses(objective.start + width * draw) for draw in draws]).mean())

    means = []
    for place, width in enumerate(tqdm(widths.tolist(), desc="Gaussian averages", leave=False, disable=None)):
        means.append(keep(f"width {place}", partial(mean, width)))
    bounds = certified_bound(
        torch.tensor(means, dtype=torch.float64).clamp(0, 1),
        BOUND_DRAWS,
        objective.weight_norm,
        objective.num_parameters,
        widths,
        int(class_counts.sum()),
        settings.delta,
    )
    return {"relative_width": list(BOUND_RATIOS), "averaged_loss": means, "bound": bounds, "draws": BOUND_DRAWS}
