"""The shot groups: partition, both boundary rules, and the published sizes."""

import json
from pathlib import Path

import pytest
import torch

from ccsam_hf.shots import ClassCounts, ShotThresholds

SPLITS = Path(__file__).parents[1] / "../shared/data/splits"


def test_boundaries_decide_the_classes_exactly_on_them() -> None:
    counts = torch.tensor([101, 100, 99, 21, 20, 19, 0])
    strict, inclusive = ShotThresholds().masks(counts), ShotThresholds(boundaries="inclusive").masks(counts)
    assert strict["many"].tolist() == [True, False, False, False, False, False, False]
    assert strict["few"].tolist() == [False, False, False, False, False, True, True]
    assert inclusive["many"].tolist() == [True, True, False, False, False, False, False]
    assert inclusive["few"].tolist() == [False, False, False, False, True, True, True]
    for masks in (strict, inclusive):
        assert list(masks) == ["many", "medium", "few"]
        assert (sum(mask.int() for mask in masks.values()) == 1).all()


@pytest.mark.parametrize(
    ("benchmark", "strict", "inclusive"),
    [
        ("ImageNet_LT", (385, 479, 136), (391, 463, 146)),
        ("iNaturalist18", (842, 4076, 3224), (845, 3698, 3599)),
    ],
)
def test_published_group_sizes(benchmark: str, strict: tuple[int, ...], inclusive: tuple[int, ...]) -> None:
    path = SPLITS / f"{benchmark}_train_class_counts.json"
    if not path.exists():
        pytest.skip("the field's split lists are not beside this checkout")
    counts = json.loads(path.read_text(encoding="utf-8"))
    assert tuple(int(mask.sum()) for mask in ShotThresholds().masks(counts).values()) == strict
    masks = ShotThresholds(boundaries="inclusive").masks(counts)
    assert tuple(int(mask.sum()) for mask in masks.values()) == inclusive


def test_places_group_sizes() -> None:
    path = SPLITS / "Places_LT_train.txt"
    if not path.exists():
        pytest.skip("the field's split lists are not beside this checkout")
    counts = torch.bincount(
        torch.tensor([int(line.split()[-1]) for line in path.read_text(encoding="utf-8").splitlines()])
    )
    assert [int(mask.sum()) for mask in ShotThresholds().masks(counts).values()] == [131, 163, 71]
    inclusive = ShotThresholds(boundaries="inclusive").masks(counts)
    assert [int(mask.sum()) for mask in inclusive.values()] == [132, 156, 77]


def test_describe_can_be_recorded() -> None:
    assert ShotThresholds(50, 10, "inclusive").describe() == {"many": 50, "few": 10, "boundaries": "inclusive"}


def test_overlapping_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="both groups; choose few below many"):
        ShotThresholds(many=20, few=20, boundaries="inclusive")
    with pytest.raises(ValueError, match="put a count of 21 into both groups"):
        ShotThresholds(many=20, few=22)
    assert not ShotThresholds(many=20, few=20).masks([20])["many"].any()


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of strict, inclusive"):
        ShotThresholds(boundaries="loose")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one count for each class"):
        ShotThresholds().masks([])
    with pytest.raises(ValueError, match="of class 1 is negative"):
        ShotThresholds().masks([3, -1])


def test_counts_from_lists_tensors_and_dicts_are_one_value() -> None:
    listed = ClassCounts.of([150, 30, 3])
    assert listed == ClassCounts.of(torch.tensor([150.0, 30.0, 3.0])) == ClassCounts.of(listed, num_classes=3)
    assert hash(listed) == hash(ClassCounts((150, 30, 3)))
    assert (list(listed), len(listed), listed[2]) == ([150, 30, 3], 3, 3)
    named = ClassCounts.of({"cat": 3, "owl": 150}, names=["owl", "cat"])
    assert (named.values, named.names) == ((150, 3), ("owl", "cat"))
    assert {name: mask.tolist() for name, mask in listed.masks().items()} == {
        "many": [True, False, False],
        "medium": [False, True, False],
        "few": [False, False, True],
    }


def test_prior_and_imbalance() -> None:
    counts = ClassCounts.of([6, 3, 1])
    assert counts.prior.tolist() == [0.6, 0.3, 0.1]
    assert counts.imbalance_ratio == 6
    assert ClassCounts.of([6, 0]).imbalance_ratio is None
    with pytest.raises(ValueError, match="no sample in any class"):
        _ = ClassCounts.of([0, 0]).prior
    assert counts.without_empty("crt") is counts
    with pytest.raises(ValueError, match=r"crt needs at least one training sample of every class, but has none of .*b"):
        ClassCounts.of({"a": 1, "b": 0}).without_empty("crt")


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([1, 2], {"num_classes": 3}, "has 2 entries for 3 classes"),
        ([1.5, 2], {}, "whole numbers of at least 0"),
        ([float("nan"), 2], {}, "whole numbers of at least 0"),
        ([float("inf"), 2], {}, "whole numbers of at least 0"),
        ([True, False], {}, "whole numbers of at least 0"),
        ([[1, 2]], {}, "one count for each class"),
        ([1, 2], {"names": ["a"]}, "1 label names for 2 class_counts"),
        ([1, 2], {"names": ["a", "a"]}, "'a' stands for more than one class"),
        ({"a": 1}, {"names": ["a", "b"]}, "do not fit the label names: b"),
    ],
)
def test_bad_counts_are_refused(counts, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ClassCounts.of(counts, **options)
