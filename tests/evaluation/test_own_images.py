"""The user's own images: folders, saved data sets, and a class order that differs from the checkpoint's."""

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from ccsam_hf.evaluation import CheckpointEvaluation, SplitOptions, evaluate_checkpoint, load_split
from ccsam_hf.inference import load_classifier
from ccsam_hf.models import create_model

NAMES = ["ant", "bee", "cat"]  # alphabetical, as folders are numbered
COUNTS = {"cat": 120, "ant": 50, "bee": 3}  # the checkpoint's order
FEW = {"bootstrap": 0, "batch_size": 5}


def pictures(name: str, number: int) -> list[PillowImage.Image]:
    values = np.random.default_rng(NAMES.index(name)).integers(0, 255, (number, 8, 8, 3), dtype=np.uint8)
    return [PillowImage.fromarray(value) for value in values]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    prepared = {"input_size": (3, 8, 8), "mean": (0.3, 0.4, 0.5), "std": (0.2, 0.3, 0.25), "crop_pct": 1.0}
    model = create_model("cifar_resnet20", 3, label_names=list(COUNTS), **prepared)
    model.config.class_counts = list(COUNTS.values())
    place = tmp_path_factory.mktemp("model")
    model.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders with 4, 5 and 6 images."""
    place = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(NAMES, 4):
        (place / name).mkdir()
        for k, image in enumerate(pictures(name, number)):
            image.save(place / name / f"{k}.png")
    return place


def expected_accuracy(checkpoint, data: datasets.Dataset, names: list[str]) -> float:
    predicted = load_classifier(checkpoint, device="cpu").predict(data["image"], top_k=1)
    right = [best[0]["label"] == names[label] for best, label in zip(predicted, data["label"], strict=True)]
    return float(np.mean(right))


def test_a_folder_of_class_folders_is_one_split(checkpoint, folder, tmp_path) -> None:
    options = CheckpointEvaluation(model=str(checkpoint), data_dir=str(folder), output_dir=str(tmp_path), **FEW)
    found = evaluate_checkpoint(options).metrics
    data = load_split(options, "test")
    assert len(data.images) == 15
    assert data.label_names == NAMES
    assert found["closed_set"]["accuracy"] == pytest.approx(expected_accuracy(checkpoint, data.images, NAMES))
    assert found["closed_set"]["group_sizes"] == {"many": 1, "medium": 1, "few": 1}
    assert found["about"]["split"] == "all"
    assert str(folder.parent) not in json.dumps(found["about"]["data"])


def test_train_and_test_folders_are_divided_as_for_training(checkpoint, folder, tmp_path) -> None:
    for name in ("train", "val"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(folder)
    options = SplitOptions(data_dir=str(tmp_path / "data"))
    assert (load_split(options, "test").split, load_split(options, "train").split) == ("test", "train")
    assert load_split(options, "test").class_counts.tolist() == [4, 5, 6]
    (tmp_path / "data" / "train").unlink()
    alone = load_split(options, "test")
    assert (alone.split, len(alone.images), alone.class_counts) == ("val", 15, None)
    with pytest.raises(ValueError, match="has no folder 'test'; it has val"):
        load_split(SplitOptions(data_dir=str(tmp_path / "data"), split="test"), "test")


@pytest.mark.parametrize("option", ["data_dir", "hub_dataset"])
@pytest.mark.parametrize("text", [False, True])
def test_a_saved_data_set_is_matched_by_name(checkpoint, tmp_path, option, text) -> None:
    order = ["bee", "cat", "ant"]
    labels = [name for name, number in zip(NAMES, (4, 5, 6), strict=True) for _ in range(number)]
    images = [image for name, number in zip(NAMES, (4, 5, 6), strict=True) for image in pictures(name, number)]
    data = datasets.Dataset.from_dict({"photo": images, "kind": labels}).cast_column("photo", datasets.Image())
    if not text:
        data = data.cast_column("kind", datasets.ClassLabel(names=order))
    datasets.DatasetDict({"train": data, "test": data.select(range(7))}).save_to_disk(tmp_path / "saved")
    options = CheckpointEvaluation(
        model=str(checkpoint), output_dir=str(tmp_path), label_column="kind", **FEW, **{option: str(tmp_path / "saved")}
    )
    split = load_split(options, "test")
    names = sorted(set(labels[:7])) if text else order
    assert (split.split, list(split.label_names), len(split.training)) == ("test", names, 15)
    evaluation = evaluate_checkpoint(options)
    assert evaluation.metrics["closed_set"]["accuracy"] == pytest.approx(
        expected_accuracy(checkpoint, split.images, names)
    )
    place = list(COUNTS)
    assert evaluation.predictions.columns["label"].tolist() == [place.index(name) for name in labels[:7]]


def test_a_saved_set_without_splits(tmp_path) -> None:
    data = datasets.Dataset.from_dict({"image": pictures("ant", 2), "label": [0, 1]})
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    data.cast(datasets.Features(features)).save_to_disk(tmp_path / "saved")
    split = load_split(SplitOptions(data_dir=str(tmp_path / "saved")), "test")
    assert (split.split, split.class_counts) == ("all", None)
    data.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "nameless")
    with pytest.warns(UserWarning, match="have no names: their numbers are taken as the checkpoint's"):
        load_split(SplitOptions(data_dir=str(tmp_path / "nameless"), label_column="label"), "test")


def test_what_does_not_fit_is_refused(checkpoint, folder, tmp_path) -> None:
    common = {"model": str(checkpoint), "output_dir": str(tmp_path), **FEW}
    with pytest.raises(ValueError, match="--benchmark, or either --data_dir or --hub_dataset"):
        evaluate_checkpoint(CheckpointEvaluation(**common))
    with pytest.raises(ValueError, match="--imbalance_ratio without effect"):
        load_split(SplitOptions(data_dir=str(folder), imbalance_ratio=10.0), "test")
    with pytest.raises(ValueError, match="--holdout without effect: the folder is one split"):
        load_split(SplitOptions(data_dir=str(folder), holdout=True), "test")
    with pytest.raises(ValueError, match="--image_column without effect"):
        load_split(SplitOptions(benchmark="digits-lt", image_column="img"), "test")
    (tmp_path / "photos" / "dog").mkdir(parents=True)
    pictures("ant", 1)[0].save(tmp_path / "photos" / "dog" / "1.png")
    with pytest.raises(ValueError, match="classes are unknown to the checkpoint, the first is 'dog'"):
        evaluate_checkpoint(CheckpointEvaluation(data_dir=str(tmp_path / "photos"), **common))
    with pytest.raises(ValueError, match="--model must be given"):
        CheckpointEvaluation(output_dir="x")


def test_counts_for_a_checkpoint_that_records_none(checkpoint, folder, tmp_path) -> None:
    bare = load_classifier(checkpoint, device="cpu")
    bare.model.save_pretrained(tmp_path / "bare")
    config = json.loads((tmp_path / "bare" / "config.json").read_text(encoding="utf-8"))
    config.pop("class_counts", None)
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    bare.transform.processor.save_pretrained(tmp_path / "bare")
    options = {"model": str(tmp_path / "bare"), "data_dir": str(folder), "output_dir": str(tmp_path), **FEW}
    with pytest.raises(ValueError, match="pass class_counts"):
        evaluate_checkpoint(CheckpointEvaluation(**options))
    (tmp_path / "counts.json").write_text(json.dumps(COUNTS), encoding="utf-8")
    found = evaluate_checkpoint(CheckpointEvaluation(class_counts=str(tmp_path / "counts.json"), **options))
    assert found.predictions.class_counts == list(COUNTS.values())
