"""Points that run side by side, each thread with a network of its own, against one point at a time."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional as F

from ccsam_hf.sharpness import AnalysisSettings, Sizes
from ccsam_hf.sharpness.landscape import landscape
from ccsam_hf.sharpness.noise import measure_noise, noise_losses
from ccsam_hf.sharpness.objective import losses_at, unflatten, unit_directions
from ccsam_hf.sharpness.problem import AnalysedNetwork, untouched
from ccsam_hf.sharpness.saved_results import PartialResults


@pytest.fixture(params=[1, 3])
def threads(request):
    """Torch's number of threads during the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def network(net, images):
    pixels, labels = images
    groups = {"all": torch.full((12,), 1 / 12), "few": (labels == 2) / 4.0}
    with untouched(net):
        yield AnalysedNetwork(net, pixels, labels, groups, batch_size=5)


def overwritten(network, objective, theta):
    """Group losses of a copy of the network whose weights are overwritten: the slow reference."""
    model = copy.deepcopy(network.model)
    with torch.no_grad():
        for name, piece in unflatten(theta, objective.shapes).items():
            model.get_parameter(name).copy_(piece)
        losses = F.cross_entropy(model(network.images), network.labels, reduction="none")
    return torch.stack([weights.double() @ losses for weights in network.groups.values()])


@pytest.mark.parametrize("scope", ["classifier", "last:1", "all"])
def test_landscape_equals_one_overwritten_network_after_another(network, threads, scope):
    objective = network.objective(scope)
    first, second = unit_directions(2, objective.start, 0)
    axes = torch.linspace(-1, 1, 5, dtype=torch.float64), torch.linspace(-2, 1, 4, dtype=torch.float64)
    before = copy.deepcopy(network.model.state_dict())
    found = landscape(objective, first, second, *axes)
    for i, a in enumerate(axes[0].tolist()):
        for j, b in enumerate(axes[1].tolist()):
            expected = overwritten(network, objective, objective.start + a * first + b * second)
            torch.testing.assert_close(found[i, j], expected)
    for name, tensor in network.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_noise_equals_one_overwritten_network_after_another(network, threads):
    objective = network.objective("all")
    ratios, directions = torch.tensor([0.0, 0.2, 0.7], dtype=torch.float64), unit_directions(2, objective.start, 3)
    found = noise_losses(objective, ratios, directions)
    for i, ratio in enumerate(ratios.tolist()):
        for s, unit in enumerate(directions):
            expected = overwritten(network, objective, objective.start + ratio * objective.start.norm() * unit)
            torch.testing.assert_close(found[i, s], expected)


@pytest.mark.parametrize("direction", ["random", "gradient"])
def test_curves_of_all_groups_equal_those_of_one_thread(network, threads, direction):
    """The gradient direction looks at one group at a time, on its own samples."""
    arguments = (network, "all", direction, AnalysisSettings(), Sizes(levels=3, seeds=2))
    found = measure_noise(*arguments)["losses"]
    torch.set_num_threads(1)
    expected = measure_noise(*arguments)["losses"]
    torch.testing.assert_close(found, expected)


def test_re_estimated_statistics_stay_in_their_own_thread(net, images, threads):
    pixels, labels = images
    with untouched(net):
        network = AnalysedNetwork(
            net, pixels, labels, {"all": torch.full((12,), 1 / 12)}, batch_size=5, recalibrate=True
        )
        objective = network.objective("all")
        first, second = unit_directions(2, objective.start, 0)
        axis = torch.linspace(-1, 1, 7, dtype=torch.float64)
        found = landscape(objective, first, second, axis, axis)
        for i, a in enumerate(axis.tolist()):
            for j, b in enumerate(axis.tolist()):
                expected = objective.group_losses(objective.start + a * first + b * second)
                torch.testing.assert_close(found[i, j], expected, rtol=1e-12, atol=1e-12)


def test_all_threads_work_and_the_number_of_torchs_threads_is_left(network, threads):
    objective = network.objective("all")
    met, barrier = set(), threading.Barrier(threads)

    def theta():
        barrier.wait(timeout=30)  # passes only when all threads are here at once
        met.add((threading.get_ident(), torch.get_num_threads()))
        return objective.start

    losses_at(objective, [(f"point {place}", theta) for place in range(2 * threads)])
    assert len({name for name, _ in met}) == threads
    assert {own for _, own in met} == {1}
    assert torch.get_num_threads() == threads
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == threads, "also for threads that come later"


def test_an_error_ends_the_work_and_keeps_what_is_finished(network, threads, tmp_path):
    objective, asked = network.objective("all"), []

    def theta(place):
        asked.append(place)
        if place == 10:
            raise KeyboardInterrupt
        return objective.start

    points = [(f"point {place}", lambda place=place: theta(place)) for place in range(300)]
    with pytest.raises(KeyboardInterrupt):
        losses_at(objective, points, PartialResults(tmp_path / "values"))
    assert len(asked) < 300, "points that had not begun were cancelled"
    assert torch.get_num_threads() == threads
    again = PartialResults(tmp_path / "values")
    for place in range(10):
        again(f"point {place}", pytest.fail)
    fresh = losses_at(objective, [(name, lambda: objective.start) for name, _ in points], again)
    assert torch.equal(fresh, fresh[:1].expand_as(fresh))
    assert len(fresh) == 300
