"""Sharpness on the user's own images, whose classes are numbered otherwise than the checkpoint's."""

import json

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torch.nn import functional as F

from ccsam_hf.inference import load_classifier
from ccsam_hf.models import create_model
from ccsam_hf.sharpness import CheckpointSharpness, measure_sharpness

COUNTS = {"cat": 12, "ant": 6, "bee": 2}  # the checkpoint's order; folders are numbered by the alphabet
FAST = {
    "samples": 20,
    "few_samples": 20,
    "levels": 2,
    "seeds": 1,
    "many": 10,
    "few": 4,
    "scopes": ["classifier"],
    "directions": ["random"],
}


def checkpoint(place, names: list[str]) -> str:
    torch.manual_seed(0)
    prepared = {"input_size": (3, 8, 8), "mean": (0.3, 0.4, 0.5), "std": (0.2, 0.3, 0.25), "crop_pct": 1.0}
    model = create_model("cifar_resnet20", 3, label_names=names, **prepared)
    model.config.class_counts = [COUNTS[name] for name in names]
    model.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    for name, number in COUNTS.items():
        (place / name).mkdir()
        values = np.random.default_rng(number).integers(0, 255, (number, 8, 8, 3), dtype=np.uint8)
        for k, value in enumerate(values):
            PillowImage.fromarray(value).save(place / name / f"{k}.png")
    return place


def test_losses_are_those_of_the_images_own_classes(folder, tmp_path) -> None:
    model = checkpoint(tmp_path / "model", list(COUNTS))
    options = CheckpointSharpness(model=[model], data_dir=str(folder), output_dir=str(tmp_path / "out"), **FAST)
    report = measure_sharpness(options)
    assert f"Split: {folder.name} all" in report.read_text(encoding="utf-8")
    stored = next((tmp_path / "out").glob("data/model/noise-classifier-random-*.json")).read_text(encoding="utf-8")
    losses = json.loads(stored)["result"]["losses"]["global"]
    classifier = load_classifier(model, device="cpu")
    for group, name in (("many", "cat"), ("medium", "ant"), ("few", "bee")):
        logits = classifier.logits(folder / name)
        target = torch.full((len(logits),), list(COUNTS).index(name))
        assert losses[group][0][0] == pytest.approx(float(F.cross_entropy(logits, target)), rel=1e-4)


def test_other_counts_than_the_folders_are_no_training_set(folder, tmp_path) -> None:
    model = checkpoint(tmp_path / "model", list(COUNTS))
    (tmp_path / "counts.json").write_text(json.dumps({**COUNTS, "cat": 13}), encoding="utf-8")
    options = CheckpointSharpness(
        model=[model],
        data_dir=str(folder),
        output_dir=str(tmp_path / "out"),
        class_counts=str(tmp_path / "counts.json"),
        **FAST,
    )
    with pytest.raises(ValueError, match="Radii and bounds are about the training set"):
        measure_sharpness(options)


def test_checkpoints_of_another_class_order_are_refused(folder, tmp_path) -> None:
    models = [checkpoint(tmp_path / "one", list(COUNTS)), checkpoint(tmp_path / "two", sorted(COUNTS))]
    options = CheckpointSharpness(model=models, data_dir=str(folder), output_dir=str(tmp_path / "out"), **FAST)
    with pytest.raises(ValueError, match="another order of them"):
        measure_sharpness(options)
