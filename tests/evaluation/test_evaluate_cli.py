"""The command on the shipped digits: raw images, a saved folder, figures, an open set, a comparison."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Image
from matplotlib import pyplot, rcParams
from PIL import Image as PillowImage

from ccsam_hf.data import load_benchmark
from ccsam_hf.evaluation import SplitOptions
from ccsam_hf.evaluation.cli import main
from ccsam_hf.evaluation.open_recognition import load_open_images
from ccsam_hf.evaluation.plots import group_bars_figure
from ccsam_hf.inference import load_classifier
from ccsam_hf.models import create_model


@pytest.fixture(scope="module")
def digits():
    return load_benchmark("digits-lt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    """An untrained model of the digits; its label names are in the reverse order of the data set's."""
    torch.manual_seed(0)
    record = digits.record
    model = create_model(
        "cifar_resnet20",
        10,
        label_names=digits.label_names[::-1],
        input_size=record.input_size,
        mean=record.mean,
        std=record.std,
        crop_pct=1.0,
    )
    model.config.class_counts = digits.class_counts.flip(0).tolist()
    place = tmp_path_factory.mktemp("model")
    model.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def open_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("open")
    pixels = np.random.default_rng(0).integers(0, 255, (12, 8, 8), dtype=np.uint8)
    for k, image in enumerate(pixels):
        PillowImage.fromarray(image).save(place / f"{k}.png")
    return place


def test_command(folder, open_folder, digits, tmp_path, capsys) -> None:
    common = ["--model", str(folder), "--benchmark", "digits-lt", "--bootstrap", "20"]
    main([*common, "--output_dir", str(tmp_path / "plain")])
    more = ["--targets", "forward-10", "--source_prior", "train", "--logit_adjustment", "1"]
    opened = ["--open_dataset", str(open_folder), "--open_scorers", "probability", "product"]
    evaluation = main(
        [*common, *more, *opened, "--output_dir", str(tmp_path / "more"), "--compare_with", str(tmp_path / "plain")]
    )
    printed = capsys.readouterr().out
    assert "500 images, 10 classes; training counts: many > 50 (" in printed
    assert "this checkpoint - " in printed
    classifier = load_classifier(folder, device="cpu")
    logits = classifier.logits(digits.test["image"])
    labels = 9 - torch.tensor(digits.test["label"])
    plain = json.loads((tmp_path / "plain" / "metrics.json").read_text(encoding="utf-8"))
    assert plain["closed_set"]["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert set(evaluation.metrics["open_set"]) == {"probability", "product"}
    assert evaluation.open_columns["label"].tolist().count(-1) == 12
    comparison = json.loads((tmp_path / "more" / "comparison.json").read_text(encoding="utf-8"))
    difference = evaluation.metrics["closed_set"]["accuracy"] - plain["closed_set"]["accuracy"]
    assert comparison["accuracy"]["difference"] == pytest.approx(difference)
    assert (tmp_path / "more" / "figures" / "groups_compared.png").exists()
    assert plain["about"]["benchmark"] == "digits-lt"
    assert plain["about"]["data"]["imbalance_ratio"] == 50


def test_seed_none_takes_the_first_images() -> None:
    assert SplitOptions(split_seed="none").seed_of_split is None
    assert SplitOptions(split_seed="3").seed_of_split == 3
    with pytest.raises(ValueError, match="--split_seed three is neither a whole number nor none"):
        _ = SplitOptions(split_seed="three").seed_of_split


def test_refused_commands(folder, tmp_path) -> None:
    common = ["--model", str(folder), "--benchmark", "digits-lt", "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match="--open_alpha without effect: pass --open_dataset"):
        main([*common, "--open_alpha", "3"])
    with pytest.raises(ValueError, match="digits-lt has no validation set; use --split test, or --holdout"):
        main([*common, "--split", "validation"])


def test_open_images_from_a_list_and_a_folder(open_folder, tmp_path) -> None:
    (tmp_path / "open.txt").write_text("0.png 5\n3.png -1\n", encoding="utf-8")
    images = load_open_images(str(tmp_path / "open.txt"), open_folder)
    assert images.column_names == ["image"]
    assert images[1]["image"].size == (8, 8)
    assert len(load_open_images("digits-lt")) == 500
    stored = tmp_path / "stored"
    stored.mkdir()
    column = Dataset.from_dict({"img": [str(open_folder / "0.png")]}).cast_column("img", Image())
    column.to_parquet(stored / "test.parquet")
    assert load_open_images(str(stored)).column_names == ["image"]
    column.select([0, 0]).to_parquet(stored / "train.parquet")
    assert [len(load_open_images(str(stored), split=name)) for name in (None, "test", "train")] == [1, 1, 2]
    # A folder of images has one split, which is called train.
    assert len(load_open_images(str(open_folder))) == 12


def test_open_images_that_are_not_there(open_folder, tmp_path) -> None:
    with pytest.raises(ValueError, match="has the splits train and no 'test'; name one as the open split"):
        load_open_images(str(open_folder), split="test")
    with pytest.raises(ValueError, match="open split 'train' has no effect on a benchmark or list"):
        load_open_images("digits-lt", split="train")
    (tmp_path / "open.txt").write_text("absent.png 5\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"1 of 1 images of open\.txt are missing"):
        load_open_images(str(tmp_path / "open.txt"), open_folder)
    with pytest.raises(ValueError, match="has no effect on a folder"):
        load_open_images(str(open_folder), tmp_path)


def test_bars_of_several_runs(tmp_path) -> None:
    closed = {"accuracy": 0.5, "many": 0.7, "medium": None, "few": 0.1, "thresholds": {"many": 100}}
    runs = {"plain": {"closed_set": closed}, "ours": {"closed_set": closed, "intervals": {"few": (0.05, 0.2)}}}
    settings, figures = dict(rcParams), pyplot.get_fignums()
    group_bars_figure(runs, tmp_path / "bars")
    assert (dict(rcParams), pyplot.get_fignums()) == (settings, figures)
    data = json.loads((tmp_path / "bars.json").read_text(encoding="utf-8"))
    assert data["runs"]["ours"]["figures"] == {"accuracy": 0.5, "many": 0.7, "medium": None, "few": 0.1}
    with PillowImage.open(tmp_path / "bars.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=2) == 0).all()  # greys only: nothing is told apart by colour
    other = {"closed_set": closed | {"thresholds": {"many": 50}}}
    with pytest.raises(ValueError, match="different shot thresholds"):
        group_bars_figure({"a": runs["plain"], "b": other}, tmp_path / "bars")
