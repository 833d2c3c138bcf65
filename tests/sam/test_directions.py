import pytest
import torch
from torch import Tensor, nn

from ccsam_hf.sam.directions import (
    adaptive_metric,
    adaptive_norms,
    adaptive_step,
    gaussian_logit_shift,
    gaussian_step,
    gradient_step,
    layerwise_step,
    mean_lengths,
    unit_lengths,
)
from ccsam_hf.sam.group_gradients import GroupGradients, Perturbation
from ccsam_hf.sam.layout import GroupLayout
from ccsam_hf.sam.partition import Groups

F64 = torch.float64
LENGTHS = torch.tensor([0.3, 0.7, 0.0, 0.2], dtype=F64)
WEIGHTS = {"a": torch.tensor([[1.0, -2, 0], [0.5, 3, 1]], dtype=F64), "b": torch.tensor([4.0, -1], dtype=F64)}


def some_gradients() -> GroupGradients:
    """Groups 0, 1 and 3 of four, with 2, 1 and 2 samples; group 3 has no gradient."""
    groups = Groups(torch.tensor([3, 0, 0, 1, 3]), torch.tensor([4, 3, 2, 1]), torch.ones(4, dtype=torch.bool))
    layout = GroupLayout.of(groups)
    gradients = GroupGradients(layout, {n: w.shape for n, w in WEIGHTS.items()}, keep=True)
    generator = torch.Generator().manual_seed(0)
    for name, weight in WEIGHTS.items():
        values = torch.randn(3, *weight.shape, generator=generator, dtype=F64)
        values[layout.present == 3] = 0
        gradients.add(name, lambda k, values=values: values[layout.segments[k].groups])
    return gradients


def epsilon(perturbation: Perturbation) -> dict[int, dict[str, Tensor]]:
    """ε_c by group and parameter."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, weight in WEIGHTS.items():
        for k, segment in enumerate(perturbation.layout.segments):
            ids = perturbation.layout.present[segment.groups].tolist()
            for group, moved in zip(ids, perturbation.moved(name, k, weight), strict=True):
                found.setdefault(group, {})[name] = moved - weight
    return found


def of_group(gradients: GroupGradients, group: int) -> dict[str, Tensor]:
    at = gradients.layout.present.tolist().index(group)
    return {name: gradients.dense(name)[at] for name in WEIGHTS}


def length(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([v.flatten() for v in values.values()]).norm()


def test_gradient_step_has_the_rules_length_along_the_gradient() -> None:
    gradients = some_gradients()
    for group, moved in epsilon(gradient_step(gradients, LENGTHS)).items():
        own = of_group(gradients, group)
        for name, value in moved.items():
            expected = torch.zeros_like(value) if group == 3 else LENGTHS[group] * own[name] / length(own)
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_layerwise_step_normalises_each_tensor_by_itself() -> None:
    gradients = some_gradients()
    seen = {}

    def rule(name: str, norms: Tensor) -> Tensor:
        seen[name] = norms
        return LENGTHS * (2 if name == "b" else 1)

    for group, moved in epsilon(layerwise_step(gradients, rule)).items():
        for name, value in moved.items():
            own = of_group(gradients, group)[name]
            assert seen[name][group] == pytest.approx(own.norm().item())
            expected = 0 if group == 3 else LENGTHS[group] * (2 if name == "b" else 1)
            torch.testing.assert_close(value.norm(), torch.as_tensor(expected, dtype=F64), rtol=0, atol=1e-12)
            assert (value * own).sum() == pytest.approx((value.norm() * own.norm()).item())
    assert seen["a"][2] == 0


def test_adaptive_step_is_the_maximiser_in_the_scaled_ball() -> None:
    gradients, metric = some_gradients(), adaptive_metric(WEIGHTS, eta=0.1)
    norms = adaptive_norms(gradients, metric)
    for group, moved in epsilon(adaptive_step(gradients, metric, LENGTHS)).items():
        own = of_group(gradients, group)
        scaled = {name: (WEIGHTS[name].abs() + 0.1) * own[name] for name in own}
        assert norms[group] == pytest.approx(length(scaled).item())
        if group == 3:
            assert length(moved) == 0
            continue
        assert length({n: v / (WEIGHTS[n].abs() + 0.1) for n, v in moved.items()}) == pytest.approx(LENGTHS[group])
        gain = sum((own[n] * moved[n]).sum() for n in own)
        assert gain == pytest.approx((LENGTHS[group] * norms[group]).item())


def test_gaussian_step_has_the_rules_length_and_does_not_depend_on_the_batchs_order() -> None:
    gradients = some_gradients()
    generator = torch.Generator().manual_seed(1)
    moved = epsilon(gaussian_step(gradients.layout, WEIGHTS, LENGTHS, generator))
    for group, values in moved.items():
        assert length(values) == pytest.approx(LENGTHS[group].item())
    other = GroupLayout.of(
        Groups(torch.tensor([0, 1, 1, 3]), torch.tensor([4, 3, 2, 1]), torch.ones(4, dtype=torch.bool))
    )
    again = epsilon(gaussian_step(other, WEIGHTS, LENGTHS, generator.manual_seed(1)))
    for group, values in moved.items():
        for name, value in values.items():
            torch.testing.assert_close(again[group][name], value, rtol=0, atol=1e-12)


def test_gaussian_logit_shift_is_a_moved_classifier() -> None:
    z = torch.randn(5, 3, dtype=F64)
    groups = Groups(torch.tensor([1, 0, 1, 3, 3]), torch.tensor([1, 1, 1, 1]), torch.ones(4, dtype=torch.bool))
    for has_bias in (True, False):
        shift = gaussian_logit_shift(z, 6, groups, has_bias, torch.Generator().manual_seed(2))
        generator = torch.Generator().manual_seed(2)
        for group in (0, 1, 3):
            noise = torch.randn(6, 3 + has_bias, generator=generator, dtype=F64)
            head = nn.Linear(3, 6, bias=has_bias).double()
            with torch.no_grad():
                head.weight.copy_(noise[:, :3] / noise.norm())
                if has_bias:
                    head.bias.copy_(noise[:, 3] / noise.norm())
            mine = groups.index == group
            torch.testing.assert_close(shift[mine], head(z[mine]), rtol=0, atol=1e-12)


def test_lengths_of_the_ablations() -> None:
    lengths, sizes = torch.tensor([0.3, 0.7, 0.0, 0.2]), torch.tensor([2, 1, 4, 0])
    assert unit_lengths(lengths).tolist() == [1, 1, 0, 1]
    mean = (2 * 0.3 + 0.7) / 3
    torch.testing.assert_close(mean_lengths(lengths, sizes), torch.tensor([mean, mean, 0, mean]))
    assert mean_lengths(torch.zeros(2), torch.tensor([1, 1])).tolist() == [0, 0]
