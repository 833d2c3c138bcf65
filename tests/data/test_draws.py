import pickle
import random

import numpy as np
import pytest
import torch

from ccsam_hf.data.draws import Draw, draw_keys, integers, random_bits, seeded, uniform


def splitmix(state: int) -> int:
    """The published generator's output for one state, in Python integers."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_a_draw_indexes_like_its_integer_and_pickles_with_its_place():
    draw = pickle.loads(pickle.dumps(Draw(3, epoch=2, position=7)))
    assert (int(draw), draw.epoch, draw.position) == (3, 2, 7)
    assert "abcdef"[draw] == "d"
    assert np.arange(6)[draw] == torch.arange(6)[draw] == 3
    assert draw == 3


def test_keys_of_draws_of_plain_indices_and_of_a_mixture():
    keys = draw_keys([Draw(9, 1, 0), Draw(8, 2, 5)])
    assert keys.epochs.tolist() == [1, 2]
    assert keys.positions.tolist() == [0, 5]
    assert draw_keys([1, 2]) is None
    with pytest.raises(ValueError, match="mixes Draw and plain indices"):
        draw_keys([Draw(9, 1, 0), 2])


def test_bits_are_the_chained_splitmix_of_their_arguments():
    bits = random_bits(-5, 3, np.array([0, 7]), stream=2, count=3)
    for row, position in enumerate((0, 7)):
        state = 0
        for word in (-5 % 2**64, 2, 3, position):
            state = splitmix(state ^ word)
        assert [int(b) for b in bits[row]] == [splitmix(state ^ splitmix(i)) for i in range(3)]


def test_a_batch_gives_what_its_members_give_alone():
    positions = np.array([4, 1, 10**6])
    together = uniform(1, 2, positions, stream=3, count=2)
    for row, position in enumerate(positions):
        np.testing.assert_array_equal(together[row], uniform(1, 2, int(position), stream=3, count=2))


@pytest.mark.parametrize("argument", ["seed", "epoch", "position", "stream"])
def test_each_argument_gives_its_own_uncorrelated_numbers(argument):
    base = {"seed": 0, "epoch": 0, "position": np.arange(20_000), "stream": 0}
    changed = base | {argument: base[argument] + 1}
    a, b = uniform(**base)[:, 0], uniform(**changed)[:, 0]
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    assert abs(a.mean() - 0.5) < 0.01
    assert abs(a.var() - 1 / 12) < 0.002


def test_integers_cover_their_range_evenly_and_take_a_range_for_each():
    drawn = integers(9, 0, 0, np.arange(9_000))[:, 0]
    assert np.bincount(drawn, minlength=9).min() > 850
    assert drawn.max() == 8
    high = np.array([[1], [1000]])
    ranged = integers(high, 0, 0, np.array([1, 2]), count=50)
    assert (ranged < high).all()
    assert ranged[1].max() > 900


def all_three() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_seeded_code_is_a_function_of_its_key_and_leaves_no_trace():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    with seeded(0, 1, 2):
        first = all_three()
    with seeded(0, 1, 3):
        other = all_three()
    with seeded(0, 1, 2):
        assert all_three() == first
    with pytest.raises(ZeroDivisionError), seeded(0, 1, 2):
        assert random.random() / 0
    assert len({*first, *other}) == 6
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
