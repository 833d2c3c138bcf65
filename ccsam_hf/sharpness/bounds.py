"""The perturbative PAC-Bayes bound as printed, and a corollary whose constants are all explicit.

**As printed** (Theorem 1, Eq. 5 and 7 of Zhou et al., CVPR 2023). With k weights, n samples, confidence 1 − δ:

    B(ρ) = L_S(w) + √k ρ ‖∇L_S(w)‖ + √((‖w‖²/(4ρ²) + log(n/δ) + O(1)) / (n − 1))

The first two terms are the maximum of L_S over ‖ε‖ ≤ √k ρ to first order. The third is McAllester's
√((KL + log(n/δ)) / 2(n − 1)) with posterior N(w, ρ²I) and prior N(0, ρ²I), whose divergence is ‖w‖²/(2ρ²); that the
logarithm is not halved as well only loosens it. Without logarithm and O(1), B has the derivative
√k‖∇L‖ − ‖w‖/(2ρ²√(n − 1)) and hence the minimiser

    ρ* = (‖w‖ / 2‖∇L‖)^½ k^-¼ (n − 1)^-¼,

which is Eq. 4, and Eq. 8 with a class's gradient and count. That this one expression yields the printed radius to the
last constant is how its form is fixed here. For a class, L_S, ∇L_S and n become L_S^c, g_c and n_c. Eq. 7's second line
drops L_S^c and prints n for n_c; `printed_bound` keeps L_S^c and uses n_c. n = 1 uses n − 1 = 1.

The number is *not* a certificate: the maximum is taken to first order only, O(1) is set to 0, and the theorem
passes from the Gaussian average to the maximum by an assumption. It also needs losses in [0, 1]. The complexity term
alone reaches 1 unless r = √k ρ/‖w‖ > √k/(2√(n − 1)): `needed_ratio`.

**Corollary.** Let the loss lie in [0, 1] and S be n independent samples. Fix, before seeing S, posterior widths
ρ_1..ρ_J and prior widths σ_1..σ_M, with Q_j = N(w, ρ_j²I) and P_m = N(0, σ_m²I). With probability at least 1 − δ over
S, for every w, however it depends on S, every j and every m at once,

    kl(E_Q L_S ‖ E_Q L_D) ≤ (KL(Q_j‖P_m) + log(2√n M/δ)) / n.

Proof: for fixed w, E_S exp(n kl(L_S‖L_D)) ≤ 2√n (Maurer 2004 for n ≥ 8; direct computation for n < 8). Average over
P_m, swap the expectations, and apply Markov's inequality at level δ/M for each m. The change of measure
E_Q f ≤ KL(Q‖P) + log E_P exp f holds for all Q at once, and kl is convex (Jensen). Only the priors need the union;
`certified_bound` takes the widths from one grid, and inverts kl numerically. E_Q L_S is itself estimated from D
Gaussian draws; by Hoeffding it exceeds their mean by more than √(log(J/δ')/2D) for some j with probability at most δ'.

It bounds E_Q L_D, the risk of the *Gaussian-averaged* classifier, not L_D(w). On classifier weights alone it holds only
for a backbone that was not trained on S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .budget import AnalysisSettings
from .objective import Objective
from .problem import AnalysedNetwork, wrong_probability
from .saved_results import Keep, compute_anew
from .shot_samples import ALL

# Gaussian draws for the averaged empirical risk of the certified bound, and its widths as ratios √k ρ/‖w‖.
BOUND_DRAWS, BOUND_RATIOS = 100, (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class PrintedBound:
    """B(ρ*) and its terms, each [C] in float64; infinite radii (zero gradients) stay infinite."""

    value: Tensor
    radius: Tensor
    relative_radius: Tensor
    complexity: Tensor
    needed_ratio: Tensor


def printed_complexity(radius: Tensor, weight_norm: Tensor, counts: Tensor, delta: float) -> Tensor:
    """√((‖w‖²/(4ρ²) + log(n/δ)) / (n − 1)): the third term as printed with O(1) = 0."""
    samples = counts.double()
    return ((weight_norm**2 / (4 * radius**2) + (samples / delta).log()) / (samples - 1).clamp(min=1)).sqrt()


def printed_objective(
    radius: Tensor,
    loss: Tensor,
    gradient_norm: Tensor,
    weight_norm: Tensor,
    num_parameters: int,
    counts: Tensor,
    delta: float,
) -> Tensor:
    """B(ρ) of the module's first formula, broadcasting."""
    climb = num_parameters**0.5 * torch.where(gradient_norm > 0, radius * gradient_norm, 0.0)
    return loss + climb + printed_complexity(radius, weight_norm, counts, delta)


def printed_bound(
    loss: Tensor, gradient_norm: Tensor, weight_norm: float, num_parameters: int, counts: Tensor, delta: float = 0.05
) -> PrintedBound:
    """The bound as printed at its exact minimiser ρ*, for each class (losses, gradient norms, counts [C]).

    B is convex in ρ. Its minimiser solves √k‖g‖ ρ² √(‖w‖²/4 + ρ² log(n/δ)) = ‖w‖²/(4√(n − 1)), whose left side
    increases: bisection on log ρ, to float64 precision. ‖g‖ = 0 gives ρ* = ∞: the first-order maximum then sees no
    cost, which is its failure and not a property of the network.
    """
    check_unit_interval(loss, delta)
    if bool((counts < 1).any()):
        raise ValueError("A class without training samples has no bound; pass the classes with counts of at least 1.")
    loss, gradient_norm, samples = loss.double(), gradient_norm.double(), counts.double()
    norm = torch.tensor(weight_norm, dtype=torch.float64)
    logarithm, effective = (samples / delta).log(), (samples - 1).clamp(min=1)

    def slope_is_negative(log_radius: Tensor) -> Tensor:
        squared = (2 * log_radius).exp()
        rise = num_parameters**0.5 * gradient_norm * squared * (norm**2 / 4 + squared * logarithm).sqrt()
        return rise < norm**2 / (4 * effective.sqrt())

    low, high = torch.full_like(loss, -100.0), torch.full_like(loss, 100.0)
    for _ in range(100):
        middle = (low + high) / 2
        negative = slope_is_negative(middle)
        low, high = torch.where(negative, middle, low), torch.where(negative, high, middle)
    radius = torch.where(gradient_norm > 0, low.exp(), torch.inf)
    return PrintedBound(
        value=printed_objective(radius, loss, gradient_norm, norm, num_parameters, samples, delta),
        radius=radius,
        relative_radius=num_parameters**0.5 * radius / norm,
        complexity=printed_complexity(radius, norm, samples, delta),
        needed_ratio=needed_ratio(num_parameters, samples),
    )


def needed_ratio(num_parameters: int, counts: Tensor) -> Tensor:
    """√k/(2√(n − 1)): below this ‖ε‖/‖w‖ = √k ρ/‖w‖ the complexity term alone exceeds 1, so the bound says nothing."""
    return num_parameters**0.5 / (2 * (counts.double() - 1).clamp(min=1).sqrt())


def gaussian_divergence(weight_norm: float, num_parameters: int, posterior: Tensor, prior: Tensor) -> Tensor:
    """KL(N(w, ρ²I) ‖ N(0, σ²I)) = ½(‖w‖²/σ² + k(ρ²/σ² − 1 − log(ρ²/σ²))), broadcasting."""
    ratio = (posterior.double() / prior.double()) ** 2
    return 0.5 * (weight_norm**2 / prior.double() ** 2 + num_parameters * (ratio - 1 - ratio.log()))


def inverse_kl(empirical: Tensor, budget: Tensor) -> Tensor:
    """The largest p with kl(q ‖ p) ≤ budget for Bernoulli q and p, by bisection from above (rounded up, so safe)."""
    q = empirical.double()
    low, high = q.clone(), torch.ones_like(q)
    for _ in range(60):
        middle = (low + high) / 2
        inside = torch.xlogy(q, q / middle) + torch.xlogy(1 - q, (1 - q) / (1 - middle)) <= budget
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return high


def certified_bound(
    empirical: Tensor,
    draws: int,
    weight_norm: float,
    num_parameters: int,
    widths: Tensor,
    samples: int,
    delta: float = 0.05,
    classes: int = 1,
) -> Tensor:
    """The corollary's bound on E_Q L_D for every posterior width ρ_j in ``widths``, [J].

    ``empirical`` [J] is the mean over ``draws`` Gaussian draws of L_S(w + ε), ε ~ N(0, ρ_j²I). Half of δ pays for
    those draws, half for the sample S; the prior width is the best of the same grid. ``classes`` > 1 divides δ, so
    that the bounds of that many classes hold together. Every entry holds, hence also the smallest.
    """
    check_unit_interval(empirical, delta)
    if samples < 1 or draws < 1 or not bool((widths > 0).all()):
        raise ValueError("The certified bound needs at least one sample and one draw, and positive widths.")
    half, grid = delta / (2 * classes), len(widths)
    averaged = (empirical.double() + math.sqrt(math.log(grid / half) / (2 * draws))).clamp(max=1)
    divergence = gaussian_divergence(weight_norm, num_parameters, widths[:, None], widths[None]).amin(1)
    budget = (divergence + math.log(2 * math.sqrt(samples) * grid / half)) / samples
    return inverse_kl(averaged, budget)


def check_unit_interval(loss: Tensor, delta: float) -> None:
    """Refuse what Theorem 1 does not cover."""
    if not 0 < delta < 1:
        raise ValueError(f"delta is a failure probability, between 0 and 1, got {delta}.")
    if bool(((loss < 0) | (loss > 1) | loss.isnan()).any()):
        raise ValueError(
            "The bound needs losses in [0, 1], and cross-entropy is not; use the probability of a wrong label, "
            "1 - p(label), or the error rate."
        )


def measure_bounds(
    network: AnalysedNetwork, settings: AnalysisSettings, class_counts: Tensor, keep: Keep = compute_anew
) -> dict[str, Any]:
    """The bound as printed, per class (Eq. 7) and overall (Eq. 5), and the certified bound, with 1 − p(label)."""
    objective = network.objective(settings.radius_scope, wrong_probability)
    losses, norms = network.class_gradients(settings.radius_scope, wrong_probability, len(class_counts), keep)
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
        "certified": _certified(network, objective, settings, class_counts, keep),
        "weight_norm": objective.weight_norm,
        "num_parameters": objective.num_parameters,
        "delta": settings.delta,
    }


def _certified(
    network: AnalysedNetwork, objective: Objective, settings: AnalysisSettings, class_counts: Tensor, keep: Keep
) -> dict[str, Any]:
    """The corollary's bound overall, on the widths of `BOUND_RATIOS`; only where all samples of the split are at hand.

    It speaks of the mean over *all* n samples, of which a subset is not the sample that was trained on.
    """
    if not torch.equal(torch.bincount(network.labels.cpu(), minlength=len(class_counts)), class_counts):
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
