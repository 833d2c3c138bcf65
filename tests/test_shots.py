"""The shot groups: partition, both boundary rules, and the published sizes."""

import json
from pathlib import Path

import pytest
import torch

from ccsam_hf.shots import ShotThresholds

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
