import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from toy_nets import ResNet, batch, randomised

from ccsam_hf.sam.directions import gradient_step
from ccsam_hf.sam.focal import focal_weights
from ccsam_hf.sam.general_step import (
    batch_gradients,
    clean_weights,
    moved_weights,
    perturbed_passes,
)
from ccsam_hf.sam.layout import GroupLayout
from ccsam_hf.sam.partition import Groups
from ccsam_hf.sam.state import RandomState

LENGTHS = torch.tensor([0.05, 0.2, 0.4], dtype=torch.float64)


class Dropped(nn.Module):
    """The residual net behind a dropout layer, so that a pass draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ResNet()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(F.dropout(x, 0.3, self.training))


def make(index: list[int], active: list[bool]) -> tuple[nn.Module, Tensor, Tensor, Groups]:
    x, y = batch(len(index))
    counts = torch.arange(len(active)) + 2
    torch.manual_seed(0)
    return randomised(Dropped()), x, y, Groups(torch.tensor(index), counts, torch.tensor(active))


def step(model, x, y, groups, lengths, flat_weight=1.0, on_pass=None):
    """The whole step as a trainer writes it; gradients end in .grad."""
    parameters = dict(model.named_parameters())
    weights = torch.full_like(x[:, 0, 0, 0], 1 / len(y))
    state = RandomState.capture()

    def losses() -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    clean = losses()
    layout = GroupLayout.one_by_one(groups)
    rest = clean_weights(weights, groups, flat_weight)
    gradients = batch_gradients(clean, groups, layout, parameters, retain_graph=True)
    (rest * clean).sum().backward()
    perturbation = gradient_step(gradients, lengths)
    for run in perturbed_passes(model, parameters, groups, perturbation, flat_weight * weights, state):
        with run.applied():
            (run.weights * losses()).sum().backward()
            if on_pass:
                on_pass(run)
    return [p.grad for p in model.parameters()]


def test_one_group_with_a_constant_length_is_a_textbook_sam_step() -> None:
    model, x, y, groups = make([0] * 9, [True])
    textbook = copy.deepcopy(model)
    torch.manual_seed(3)
    got = step(model, x, y, groups, LENGTHS[:1])

    torch.manual_seed(3)
    F.cross_entropy(textbook(x), y).backward()
    norm = torch.stack([p.grad.norm() for p in textbook.parameters()]).norm()
    buffers = [b.clone() for b in textbook.buffers()]
    with torch.no_grad():
        for p in textbook.parameters():
            p.add_(LENGTHS[0] * p.grad / norm)
            p.grad = None
    torch.manual_seed(3)
    F.cross_entropy(textbook(x), y).backward()
    for one, other in zip(got, textbook.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=0, atol=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))


def test_a_tail_group_that_holds_everything_is_sam() -> None:
    model, x, y, groups = make([1] * 9, [False, True])
    whole, *_ = make([0] * 9, [True])
    torch.manual_seed(3)
    got = step(model, x, y, groups, LENGTHS[[1, 0]])
    torch.manual_seed(3)
    expected = step(whole, x, y, Groups(groups.index * 0, torch.tensor([2]), torch.tensor([True])), LENGTHS[:1])
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("flat_weight", [1.0, 0.4])
@pytest.mark.parametrize("active", [[True, True, True], [False, True, True], [True, False, False]])
@pytest.mark.parametrize("index", [[0, 1, 2, 0, 1, 2, 0, 0, 1], [1, 1, 1, 2]])
def test_equals_loop_over_groups(index: list[int], active: list[bool], flat_weight: float) -> None:
    model, x, y, groups = make(index, active)
    twin = copy.deepcopy(model)
    torch.manual_seed(3)
    got = step(model, x, y, groups, LENGTHS, flat_weight)

    def losses(moved: dict[str, Tensor]) -> Tensor:
        torch.manual_seed(3)
        return F.cross_entropy(functional_call(twin, moved, (x,)), y, reduction="none")

    parameters = dict(twin.named_parameters())
    clean = losses({})
    total = (1 - flat_weight) * clean.sum()
    for g in range(3):
        mine = groups.index == g
        if active[g] and mine.any():
            grads = torch.autograd.grad(clean[mine].mean(), list(parameters.values()), retain_graph=True)
            norm = torch.cat([v.flatten() for v in grads]).norm()
            moved = {n: p + LENGTHS[g] * v / norm for (n, p), v in zip(parameters.items(), grads, strict=True)}
            total = total + flat_weight * losses(moved)[mine].sum()
        else:
            total = total + flat_weight * clean[mine].sum()
    expected = torch.autograd.grad(total / len(y), list(parameters.values()))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_counts_the_passes_and_marks_the_last() -> None:
    model, x, y, groups = make([0, 1, 2, 0, 1, 2], [True, True, True])
    calls, marks = [], []
    model.net.fc.register_forward_hook(lambda *_: calls.append(1))
    step(model, x, y, groups, LENGTHS, on_pass=lambda run: marks.append((run.group, run.last)))
    assert len(calls) == 1 + 3
    assert marks == [(0, False), (1, False), (2, True)]


def test_absent_groups_are_run_where_every_process_must() -> None:
    _, _, _, groups = make([0, 0, 2], [True, True, True])
    assert GroupLayout.one_by_one(groups).present.tolist() == [0, 2]
    assert GroupLayout.one_by_one(groups, absent_too=True).present.tolist() == [0, 1, 2]


def test_a_pass_that_raises_leaves_weights_buffers_and_gradients_as_they_were() -> None:
    model, x, y, groups = make([0, 1, 2, 0, 1, 2], [True, True, True])
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    plain = copy.deepcopy(model)
    torch.manual_seed(3)
    plain(x)
    before = [p.clone() for p in model.parameters()]

    def fail(run) -> None:
        if run.group == 1:
            model.net.fc.weight.grad = None
            raise KeyError

    torch.manual_seed(3)
    with pytest.raises(KeyError):
        step(model, x, y, groups, LENGTHS, on_pass=fail)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), plain.buffers(), strict=True))


def test_random_numbers_after_the_step_follow_those_of_plain_training() -> None:
    model, x, y, groups = make([0, 1, 0, 1], [True, True])
    torch.manual_seed(3)
    step(model, x, y, groups, LENGTHS[:2])
    after = torch.rand(2)
    torch.manual_seed(3)
    model(x)
    assert torch.equal(after, torch.rand(2))


def test_gradients_accumulate() -> None:
    model, x, y, groups = make([0, 1, 0, 1], [True, True])
    torch.manual_seed(3)
    alone = [g.clone() for g in step(copy.deepcopy(model), x, y, groups, LENGTHS[:2])]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    torch.manual_seed(3)
    for one, other in zip(step(model, x, y, groups, LENGTHS[:2]), alone, strict=True):
        torch.testing.assert_close(one, other + 1, rtol=0, atol=1e-12)


def test_moved_weights_come_back_bit_for_bit_and_leave_earlier_graphs_valid() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.clone()
    x = torch.randn(4, 3, requires_grad=True)
    y = layer(x).sum()
    with moved_weights({"weight": layer.weight}, {"weight": torch.zeros(2, 3)}):
        assert torch.equal(layer.weight, torch.zeros(2, 3))
    assert torch.equal(layer.weight, before)
    y.backward()
    assert torch.equal(x.grad, before.sum(0).expand(4, 3))


def test_reduced_gradients_are_those_of_the_joined_batch() -> None:
    x, y = batch(8)
    index, counts, active = torch.tensor([0, 1, 0, 0, 1, 0, 0, 0]), torch.tensor([9, 3]), torch.tensor([True, True])
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).double()
    parameters = dict(model.named_parameters())

    def gradients(rows: slice, reduce=None) -> list[Tensor]:
        groups = Groups(index[rows], counts, active)
        losses = F.cross_entropy(model(x[rows]), y[rows], reduction="none")
        layout = GroupLayout.one_by_one(groups, absent_too=True)
        found = batch_gradients(losses, groups, layout, parameters, reduce=reduce)
        return [found.dense(name) for name in parameters]

    sent: list[Tensor] = []
    sizes = iter([torch.tensor(float(n)) for n in (6, 2, 6, 2)])

    def send(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0:
            return next(sizes)
        sent.append(tensor)
        return tensor

    gradients(slice(0, 4), send)
    queue = iter(sent)
    joined = gradients(slice(4, 8), lambda t: next(sizes) if t.dim() == 0 else t + next(queue))
    for one, other in zip(joined, gradients(slice(0, 8)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_loss_scale_does_not_change_the_gradients() -> None:
    model, x, y, groups = make([0, 1, 0, 1], [True, True])
    model.eval()
    parameters, layout = dict(model.named_parameters()), GroupLayout.one_by_one(groups)
    losses = F.cross_entropy(model(x), y, reduction="none")
    plain = batch_gradients(losses, groups, layout, parameters, retain_graph=True)
    scaled = batch_gradients(losses, groups, layout, parameters, loss_scale=torch.tensor(1024.0))
    for name in parameters:
        torch.testing.assert_close(plain.dense(name), scaled.dense(name), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("gamma", "weight"), [(0.0, 1.0), (2.0, 0.7), (0.5, 1.3)])
def test_focal_sam_is_its_objective_with_the_perturbation_constant(gamma: float, weight: float) -> None:
    model, x, y, _ = make([0] * 9, [True])
    model.eval()
    counts, rho = torch.tensor([50, 20, 8, 3, 1]), 0.1
    parameters = dict(model.named_parameters())
    groups = Groups(torch.zeros_like(y), torch.tensor([82]), torch.tensor([True]))
    focal = focal_weights(y, counts, gamma, weight)
    losses = F.cross_entropy(model(x), y, reduction="none")
    layout = GroupLayout.one_by_one(groups)
    found = batch_gradients(losses, groups, layout, parameters, weights=focal.direction, retain_graph=True)
    (focal.clean * losses).sum().backward()
    perturbation = gradient_step(found, torch.tensor([rho], dtype=torch.float64))
    state = RandomState.capture()
    for run in perturbed_passes(model, parameters, groups, perturbation, focal.perturbed, state):
        with run.applied():
            (run.weights * F.cross_entropy(model(x), y, reduction="none")).sum().backward()

    def focal_loss(values: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for c in range(5):
            total = total + (1 - counts[c] / counts.sum().double()) ** gamma * values[y == c].sum() / len(y)
        return total

    plain = F.cross_entropy(model(x), y, reduction="none")
    grads = torch.autograd.grad(focal_loss(plain), list(parameters.values()), retain_graph=True)
    norm = torch.cat([g.flatten() for g in grads]).norm()
    moved = {n: p + rho * g / norm for (n, p), g in zip(parameters.items(), grads, strict=True)}
    there = F.cross_entropy(functional_call(model, moved, (x,)), y, reduction="none")
    objective = plain.mean() + weight * (focal_loss(there) - focal_loss(plain))
    for p, expected in zip(model.parameters(), torch.autograd.grad(objective, list(parameters.values())), strict=True):
        torch.testing.assert_close(p.grad, expected, rtol=0, atol=1e-9)


def test_focal_sam_refuses_negative_settings() -> None:
    y, counts = torch.tensor([0, 1]), torch.tensor([2, 1])
    with pytest.raises(ValueError, match="gamma must be at least 0, got -1"):
        focal_weights(y, counts, -1, 1)
    with pytest.raises(ValueError, match="sharpness_weight must be at least 0, got -2"):
        focal_weights(y, counts, 1, -2)
