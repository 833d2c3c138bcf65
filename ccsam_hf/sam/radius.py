"""How far each group's weights are moved."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def _rarity(counts: Tensor, exponent: float) -> Tensor:
    """(n - 1)^-exponent, with n = 1 treated as n = 2 so that a class of one image has a finite radius."""
    return (counts - 1).clamp(min=1) ** -exponent


def characteristic_radius(
    weight_norm: Tensor | float, grad_norm: Tensor | float, num_parameters: int, class_counts: Tensor
) -> Tensor:
    """The class-conditional radius of CC-SAM: rarer classes and smaller gradients get a larger one.

    ρ_c = (‖w‖ / 2‖g_c‖)^½ · k^-¼ · (n_c − 1)^-¼    (Eq. 8 of Zhou et al., CVPR 2023)

    ``weight_norm`` is ‖w‖ over all perturbed parameters, ``grad_norm`` ‖g_c‖ of the class's mean loss over the same
    parameters, ``num_parameters`` their number k and ``class_counts`` the training counts n_c; arguments broadcast.
    The perturbation itself has the length √k · ρ_c (Eq. 9). A class with n_c = 1 uses n_c − 1 = 1. A gradient of
    zero gives an infinite radius: callers cap it and leave such a class unperturbed.
    """
    counts = torch.as_tensor(class_counts)
    counts = counts if counts.is_floating_point() else counts.to(torch.get_default_dtype())
    ratio = torch.as_tensor(weight_norm) / (2 * torch.as_tensor(grad_norm))
    return ratio**0.5 * num_parameters**-0.25 * _rarity(counts, 0.25)


@dataclass(frozen=True)
class RadiusRule:
    """The length ‖ε_g‖ of each group's perturbation, one of three scales times u_g = ‖g_g‖^-a (n_g − 1)^-b.

    * ``radius`` ρ: ‖ε_g‖ = ρ for every group (SAM's constant radius; a and b must be 0);
    * ``radius_scale`` s: ‖ε_g‖ = s · k^¼ (‖w‖/2)^½ · u_g, which for (a, b) = (½, ¼) is s · √k · ρ_c with ρ_c of
      Eq. 8, i.e. Eq. 9 as printed times s;
    * ``relative_radius`` r̄: ‖ε_g‖/‖w‖ = r̄ · u_g/ū with ū the running mean of u over samples, so that a sample
      is moved by r̄ on average whatever the network, loss and batch size.

    (a, b) = (``gradient_exponent``, ``count_exponent``): (½, ¼) is CC-SAM, (0, ¼) counts only, (0, 0) constant,
    (1, 0) equal first-order loss. ‖ε_g‖ is at most ``max_perturbation_ratio`` · ‖w‖, because ‖g‖^-a diverges on
    fitted classes; None leaves the rule as printed. A group with ‖g‖ = 0 is not moved.
    """

    radius: float | None = None
    radius_scale: float | None = None
    relative_radius: float | None = None
    gradient_exponent: float = 0.5
    count_exponent: float = 0.25
    max_perturbation_ratio: float | None = 0.1

    def __post_init__(self) -> None:
        scales = {name: getattr(self, name) for name in ("radius", "radius_scale", "relative_radius")}
        given = {name: value for name, value in scales.items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"Set exactly one of radius, radius_scale and relative_radius; got {given or 'none'}.")
        for name, value in given.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value}.")
        if self.radius is not None and (self.gradient_exponent, self.count_exponent) != (0, 0):
            raise ValueError(
                "radius is the constant radius of SAM: gradient_exponent and count_exponent must be 0 with it; "
                "use radius_scale or relative_radius for a radius that depends on the class."
            )
        for name in ("gradient_exponent", "count_exponent"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, got {getattr(self, name)}.")
        cap = self.max_perturbation_ratio
        if cap is not None and not cap > 0:
            raise ValueError(f"max_perturbation_ratio must be positive or None, got {cap}.")
        if cap is not None and self.relative_radius is not None and self.relative_radius > cap:
            raise ValueError(
                f"relative_radius {self.relative_radius} is above max_perturbation_ratio {cap}, which would hold "
                "every class at the cap; lower the one or raise the other."
            )

    @property
    def is_zero(self) -> bool:
        return 0 in (self.radius, self.radius_scale, self.relative_radius)

    def unit(self, grad_norm: Tensor, counts: Tensor) -> Tensor:
        """u_g = ‖g_g‖^-a (n_g − 1)^-b, [G]; 0 where ‖g_g‖ = 0."""
        defined = grad_norm > 0
        powered = torch.where(defined, grad_norm, 1) ** -self.gradient_exponent
        return torch.where(defined, powered * _rarity(counts.to(grad_norm.dtype), self.count_exponent), 0)

    def lengths(
        self,
        grad_norm: Tensor,
        counts: Tensor,
        weight_norm: Tensor,
        num_parameters: int,
        mean_unit: Tensor | None = None,
    ) -> Tensor:
        """‖ε_g‖ for each group, [G], from ‖g_g‖ [G], n_g [G], ‖w‖, k and, for ``relative_radius``, ū.

        ū = 0 says that no mean is known yet (the first step of a run): every group then moves by r̄.
        """
        unit = self.unit(grad_norm, counts)
        if self.radius is not None:
            lengths = self.radius * unit
        elif self.radius_scale is not None:
            lengths = self.radius_scale * num_parameters**0.25 * (weight_norm / 2) ** 0.5 * unit
        else:
            assert mean_unit is not None
            assert self.relative_radius is not None
            known = mean_unit > 0
            relative = torch.where(known, unit / torch.where(known, mean_unit, 1), (unit > 0).to(unit.dtype))
            lengths = self.relative_radius * relative * weight_norm
        if self.max_perturbation_ratio is not None:
            lengths = lengths.minimum(self.max_perturbation_ratio * weight_norm)
        return lengths

    def clipped_unit(self, unit: Tensor, mean_unit: Tensor) -> Tensor:
        """u_g as it counts towards ū: no more than the cap lets through.

        A fitted class has an almost infinite u; averaged as it stands, it alone would set ū and shrink every other
        perturbation to nothing. Clipped where the cap binds, ū makes the mean *applied* relative radius r̄.
        """
        if self.max_perturbation_ratio is None or not self.relative_radius:
            return unit
        limit = mean_unit * (self.max_perturbation_ratio / self.relative_radius)
        return torch.where(mean_unit > 0, unit.minimum(limit), unit)
