from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from ccsam_hf.data.counts import class_counts, labels_of
from ccsam_hf.data.long_tail import (
    long_tailed_positions,
    long_tailed_sizes,
    make_long_tailed,
    positions_outside,
    stratified_holdout,
)

SHARED = Path(__file__).parents[2] / "../shared/data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the benchmark data lie in ../shared/data")
BALANCED = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 300))
CIFAR_TOTALS = [
    (10, 5000, 200, 11_203),
    (10, 5000, 100, 12_406),
    (10, 5000, 50, 13_996),
    (100, 500, 200, 9_502),
    (100, 500, 100, 10_847),
    (100, 500, 50, 12_608),
]


def with_labels(labels) -> datasets.Dataset:
    rows = {"label": labels, "row": np.arange(len(labels))}
    return datasets.Dataset.from_dict(rows)


def field_selection(labels: np.ndarray, imbalance_ratio: float, seed: int) -> list[int]:
    """The published recipe step by step: global legacy generator, class after class, shuffle, take the first."""
    num_classes = labels.max() + 1
    largest = len(labels) / num_classes
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    chosen = []
    for c in range(num_classes):
        size = int(largest * (1 / imbalance_ratio) ** (c / (num_classes - 1.0)))
        positions = np.where(labels == c)[0]
        np.random.shuffle(positions)  # noqa: NPY002
        chosen += positions[:size].tolist()
    np.random.set_state(state)  # noqa: NPY002
    return chosen


@pytest.mark.parametrize(("classes", "size", "ratio", "total"), CIFAR_TOTALS)
def test_cifar_sizes_are_the_fields(classes, size, ratio, total):
    sizes = long_tailed_sizes(np.full(classes, size), ratio)
    assert sizes.sum() == total
    assert (sizes[0], sizes[-1]) == (size, size // ratio)


@pytest.mark.parametrize(("ratio", "seed"), [(100, 0), (50, 0), (20, 7)])
def test_images_are_those_of_the_fields_split(ratio, seed):
    train = make_long_tailed(with_labels(BALANCED), ratio, split_seed=seed)
    assert train["row"][:] == field_selection(BALANCED, ratio, seed)


@needs_shared
def test_images_of_cifar100_are_those_of_the_fields_split():
    labels = pq.read_table(SHARED / "cifar100/train.parquet", columns=["fine_label"])["fine_label"].to_numpy()
    for ratio, total in [(200, 9_502), (100, 10_847), (50, 12_608)]:
        positions = long_tailed_positions(labels, long_tailed_sizes(np.bincount(labels), ratio))
        assert positions.tolist() == field_selection(labels, ratio, 0)
        assert len(positions) == total


@needs_shared
def test_a_set_drawn_at_50_contains_those_at_100_and_200():
    labels = pq.read_table(SHARED / "cifar10_lt/train_ir50.parquet", columns=["label"])["label"].to_numpy()
    drawn = with_labels(labels)
    for ratio, total in [(200, 11_203), (100, 12_406), (50, 13_996)]:
        train = make_long_tailed(drawn, ratio, split_seed=None)
        assert len(train) == total
        counts = class_counts(train)
        assert counts.tolist() == [int(5000 * ratio ** (-c / 9)) for c in range(10)]
        rows = np.array(train["row"])
        for c in range(10):
            assert rows[labels[rows] == c].tolist() == np.flatnonzero(labels == c)[: counts[c]].tolist()


def test_a_seedless_draw_of_a_draw_is_the_draw_itself():
    drawn = make_long_tailed(with_labels(BALANCED), 10)
    again = make_long_tailed(drawn, 10, split_seed=None)
    direct = make_long_tailed(with_labels(BALANCED), 100)
    assert again["row"][:] == drawn["row"][:]
    assert make_long_tailed(drawn, 100, split_seed=None)["row"][:] == direct["row"][:]


@pytest.mark.parametrize("profile", ["exponential", "step", "pareto"])
def test_profiles_run_from_the_largest_class_to_its_share(profile):
    sizes = long_tailed_sizes(np.full(10, 300), 50, profile)
    reference = {
        "exponential": [300 * 50 ** (-r / 9) for r in range(10)],
        "step": [300] * 5 + [6] * 5,
        "pareto": [300 / (r + 1) ** (np.log(50) / np.log(10)) for r in range(10)],
    }[profile]
    assert (sizes[0], sizes[-1]) == (300, 6)
    assert abs(sizes - np.array(reference)).max() <= 1
    assert (np.diff(sizes) <= 0).all()


def test_order_of_classes_and_cap():
    available = np.array([300, 100, 200])
    assert long_tailed_sizes(np.full(3, 300), 100, class_order="descending").tolist() == [3, 30, 300]
    assert long_tailed_sizes(np.full(3, 300), 100, class_order=[1, 2, 0]).tolist() == [3, 300, 30]
    assert long_tailed_sizes(available, 4, class_order="by_count").tolist() == [300, 75, 150]
    assert long_tailed_sizes(np.full(3, 300), 100, cap=200).tolist() == [200, 20, 2]


def test_an_uneven_pool_gives_the_most_that_every_class_can_serve():
    assert long_tailed_sizes(np.array([300, 20, 200]), 100).tolist() == [209, 20, 2]
    assert long_tailed_sizes(np.array([300, 300, 300]), 1).tolist() == [300, 300, 300]


def test_every_kind_of_data_set_is_selected():
    items = [{"label": int(label), "row": row} for row, label in enumerate(BALANCED)]
    chosen = make_long_tailed(items, 10)
    assert [item["row"] for item in chosen] == make_long_tailed(with_labels(BALANCED), 10)["row"][:]


def test_the_tuning_split_is_disjoint_balanced_and_the_same_for_every_ratio():
    validations = []
    for ratio in (10, 100):
        sizes = long_tailed_sizes(np.full(10, 300), ratio, cap=270)
        train = long_tailed_positions(BALANCED, sizes)
        validation = positions_outside(BALANCED, sizes, 0, limit=30)
        assert not set(train) & set(validation)
        assert np.bincount(BALANCED[validation]).tolist() == [30] * 10
        validations.append(validation.tolist())
    assert validations[0] == validations[1]


def test_a_stratified_holdout_keeps_an_image_of_each_class():
    labels = np.repeat([0, 1, 2, 3], [100, 10, 2, 1])
    kept, held = stratified_holdout(labels, 0.9, split_seed=3)
    assert sorted([*kept, *held]) == list(range(113))
    assert np.bincount(labels[kept]).tolist() == [10, 1, 1, 1]
    assert np.bincount(labels[held], minlength=4).tolist() == [90, 9, 1, 0]
    assert held.tolist() == stratified_holdout(labels, 0.9, split_seed=3)[1].tolist()
    assert held.tolist() != stratified_holdout(labels, 0.9, split_seed=4)[1].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imbalance_ratio": 0.5}, "largest over smallest class, at least 1: got 0.5"),
        ({"imbalance_ratio": 400}, "leaves 1 classes without an image: choose a ratio of at most 300"),
        ({"profile": "linear"}, "Unknown profile 'linear': choose one of exponential, step, pareto"),
        ({"cap": 0}, "cap must be at least 1"),
        ({"class_order": "random"}, "Unknown class order 'random'"),
        ({"class_order": [0, 0, 1]}, r"each label 0\.\.9 once"),
        ({"label_column": "y"}, "No column 'y'; the columns are label, row"),
    ],
)
def test_bad_splits_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_long_tailed(with_labels(BALANCED), **{"imbalance_ratio": 10} | options)


def test_bad_holdouts_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        stratified_holdout(BALANCED, 1.0)
    with pytest.raises(ValueError, match="is empty here: choose a larger fraction"):
        stratified_holdout(np.array([0, 1]), 0.1)


def test_streams_are_refused():
    with pytest.raises(ValueError, match="streaming"):
        make_long_tailed(with_labels(BALANCED).to_iterable_dataset(), 10)


def test_gaps_in_the_labels_are_refused():
    with pytest.raises(ValueError, match="1 of 3 classes have no image: 1"):
        make_long_tailed(with_labels([0, 2, 2]), 1)
    assert labels_of(make_long_tailed(with_labels([0, 1, 1]), 1)).tolist() == [0, 1]
