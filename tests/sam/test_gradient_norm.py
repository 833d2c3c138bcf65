import pytest
import torch
from torch import Tensor

from ccsam_hf.sam.closed_form import unit_logit_shift
from ccsam_hf.sam.gradient_norm import (
    NormState,
    linear_sample_squares,
    off_diagonal_square,
    unbiased_norms,
)
from ccsam_hf.sam.partition import Groups

F64 = torch.float64


def sample_gradients(z: Tensor, delta: Tensor, has_bias: bool) -> Tensor:
    rows = torch.cat([z, torch.ones(len(z), 1, dtype=F64)], 1) if has_bias else z
    return (delta[:, :, None] * rows[:, None, :]).flatten(1)


def case(labels: list[int], has_bias: bool, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(len(labels), 5, generator=generator, dtype=F64)
    delta = torch.randn(len(labels), 4, generator=generator, dtype=F64)
    index = torch.tensor(labels)
    groups = Groups(index, torch.tensor([5, 4, 3, 2]), torch.ones(4, dtype=torch.bool))
    _, norm = unit_logit_shift(z, delta, groups, has_bias)
    squares = linear_sample_squares(z, delta, groups, has_bias)
    return sample_gradients(z, delta, has_bias), groups, norm, squares


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("labels", [[0, 0, 1, 2, 2, 2], [3, 3, 3, 3], [0, 1]])
def test_off_diagonal_square_is_the_mean_over_pairs(labels: list[int], has_bias: bool) -> None:
    gradients, groups, norm, squares = case(labels, has_bias)
    got = off_diagonal_square(norm, squares, groups.sizes())
    for g in range(4):
        mine = [i for i, label in enumerate(labels) if label == g]
        pairs = [gradients[i] @ gradients[j] for i in mine for j in mine if i != j]
        if pairs:
            torch.testing.assert_close(got[g], torch.stack(pairs).mean(), rtol=0, atol=1e-10)
        else:
            assert got[g].isnan()


def test_is_unbiased_where_the_batch_norm_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.full((6,), 0.3, dtype=F64)
    draws = mean + torch.randn(4000, 3, 6, generator=generator, dtype=F64)
    norm = draws.mean(1).norm(dim=1)
    estimate = off_diagonal_square(norm, draws.square().sum((1, 2)), torch.full((4000,), 3))
    assert abs(estimate.mean() - mean.square().sum()) < 0.06
    assert norm.square().mean() > mean.square().sum() + 1.5


def test_first_estimates_need_no_smoothing_and_are_floored() -> None:
    norm, squares, sizes = torch.tensor([2.0, 1.0]), torch.tensor([9.0, 8.0]), torch.tensor([2, 2])
    _, smooth = unbiased_norms(NormState.empty(2), norm, squares, sizes)
    first = ((4 * 4 - 9) / 2) ** 0.5
    torch.testing.assert_close(smooth, torch.tensor([first, 0.1]))


def test_single_samples_are_shrunk_by_the_pooled_share_of_signal() -> None:
    norm, squares, sizes = torch.tensor([2.0, 3.0, 0.0]), torch.tensor([10.0, 9.0, 0.0]), torch.tensor([2, 1, 0])
    state, smooth = unbiased_norms(NormState.empty(3), norm, squares, sizes)
    share = ((4 * 4 - 10) / 2) / (10 / 2)
    torch.testing.assert_close(smooth, torch.tensor([3.0**0.5, (share * 9) ** 0.5, 0.0]))
    assert state.weight[2] == 0


def test_without_any_pair_a_single_sample_keeps_its_norm() -> None:
    state, smooth = unbiased_norms(
        NormState.empty(2), torch.tensor([2.0, 0.0]), torch.tensor([4.0, 0.0]), torch.tensor([1, 0])
    )
    torch.testing.assert_close(smooth, torch.tensor([2.0, 0.0]))
    assert state.power == 0


def test_smoothing_is_a_corrected_running_mean_of_the_batches_that_hold_the_class() -> None:
    state = NormState.empty(1)
    values = [4.0, None, 9.0, 1.0]
    for value in values:
        size = torch.tensor([0 if value is None else 2])
        square = torch.tensor([value or 0.0])
        # ‖ḡ‖² = value and Σ ‖g_i‖² = 2 · value: the off-diagonal mean is the value itself.
        state, smooth = unbiased_norms(state, square.sqrt(), 2 * square, size, momentum=0.5)
    weights = [0.125, 0.25, 0.5]
    expected = sum(w * v for w, v in zip(weights, [4.0, 9.0, 1.0], strict=True)) / sum(weights)
    torch.testing.assert_close(smooth, torch.tensor([expected**0.5]))
