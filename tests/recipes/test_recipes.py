"""Every recipe, run as a user runs it, on small generated images in the official layout."""

import json
import re
import runpy
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from transformers import pipeline

from ccsam_hf.cli import COMMANDS
from ccsam_hf.data import load_benchmark
from ccsam_hf.evaluation import Predictions
from ccsam_hf.experiment.smoke_data import PLACES, class_picture
from ccsam_hf.inference import load_classifier
from ccsam_hf.methods import METHODS

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ("cifar_lt", "imagenet_lt", "places_lt", "inat2018", "image_folder")
ROWS = ("CE", "cRT", "CC-SAM, stage 1", "CC-SAM, both stages")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Networks this small only lose time to further threads, and much of it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[Path, str]]:
    """Folder and printed text of each recipe that has run."""
    return {}


@pytest.fixture
def run(runs, tmp_path_factory, monkeypatch, capsys):
    def once(name: str) -> tuple[Path, str]:
        if name not in runs:
            monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
            folder = tmp_path_factory.mktemp(name)
            monkeypatch.setattr(
                "sys.argv", [f"{name}.py", "--smoke", "--output_dir", str(folder / "run"), "--use_cpu=true"]
            )
            runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
            runs[name] = folder / "run", capsys.readouterr().out
        return runs[name]

    return once


@pytest.mark.parametrize("name", NAMES)
def test_runs_end_to_end(run, name) -> None:
    folder, printed = run(name)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["results"])[-2:] == ["stage 1", "stage 2"]
    assert metrics["checkpoint"] == "last epoch"
    for stage, figures in metrics["results"].items():
        shown = next(line for line in printed.splitlines() if line.startswith(f"{stage} "))
        assert f"{100 * figures['accuracy']:.2f}" in shown
        assert None not in (figures["many"], figures["few"])
    assert (folder / "groups.png").stat().st_size > 5000
    assert "imbalance ratio" in printed
    assert "few-shot" in printed.lower()
    classifier = load_classifier(folder / "model")
    assert sum(classifier.class_counts) == sum(
        json.loads((folder / "model/config.json").read_text(encoding="utf-8"))["class_counts"]
    )
    assert classifier.training_prior == "uniform"
    assert "model-index" in (folder / "model" / "README.md").read_text(encoding="utf-8")


def test_the_digits_show_four_rows_with_mean_and_spread_over_the_seeds(run) -> None:
    folder, printed = run("digits_lt")
    rows = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, seed) for seed in (0, 1, 2) for pair in (ROWS[:2], ROWS[2:]) for method in pair
    ]
    for method in ROWS:
        own = [row for row in rows if row["method"] == method]
        shown = next(line for line in printed.splitlines() if line.startswith(f"{method}  "))
        for column, name in zip(
            re.findall(r"[\d.]+ ± [\d.]+", shown), ("accuracy", "many", "medium", "few"), strict=True
        ):
            values = 100 * np.array([row[name] for row in own])
            assert column == f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
    card = " ".join((folder / "seed0/ccsam/model/README.md").read_text(encoding="utf-8").split())
    assert all(f"{method}, mean ± standard deviation of seeds 0, 1, 2: overall" in card for method in ROWS)
    assert (folder / "gain.png").stat().st_size > 5000
    for command in re.findall(r"(?:ccsam-hf |recipes/)(\w+)", printed.partition("What to type next")[2]):
        assert command in COMMANDS or (RECIPES / f"{command}.py").is_file()


def test_the_four_digits_rows_start_from_the_same_weights(run) -> None:
    folder, _ = run("digits_lt")
    settings = [(folder / f"seed0/{arm}/settings.yaml").read_text(encoding="utf-8") for arm in ("plain", "ccsam")]
    plain, ccsam = (yaml.safe_load(text) for text in settings)
    assert plain["benchmark"] == ccsam["benchmark"]
    differing = {
        name for name in {*plain["stage1"], *ccsam["stage1"]} if plain["stage1"].get(name) != ccsam["stage1"].get(name)
    }
    assert differing == {"perturbation", "output_dir"}


@pytest.mark.parametrize("name", [*NAMES, "digits_lt"])
def test_says_what_it_is(name) -> None:
    text = (RECIPES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert "accelerate launch" in text.split('"""')[1]
    assert f"recipes/{name}.py" in text
    assert "paper" in text.lower()


@pytest.mark.parametrize(
    ("name", "benchmark", "network"),
    [
        ("imagenet_lt", "imagenet-lt", "resnext50_32x4d"),
        ("places_lt", "places-lt", "resnet152"),
        ("inat2018", "inat2018", "resnet50"),
    ],
)
def test_a_header_has_the_papers_four_figures(name, benchmark, network) -> None:
    header = " ".join((RECIPES / f"{name}.py").read_text(encoding="utf-8").split('"""')[1].split())
    row = METHODS["ccsam"].printed_on(benchmark, None, network)
    assert row is not None
    figures = f"{row.overall} / {row.many} / {row.medium} / {row.few}"
    assert f"overall / many / medium / few paper ({row.source}) {figures} measured here: not yet" in header


def test_the_cifar_header_has_the_papers_rows() -> None:
    header = (RECIPES / "cifar_lt.py").read_text(encoding="utf-8").split('"""')[1]
    for benchmark in ("cifar10-lt", "cifar100-lt"):
        rows = [METHODS["ccsam"].printed_on(benchmark, ratio) for ratio in (200, 100, 50)]
        row = " / ".join(f"{row.overall:.2f}" for row in rows if row is not None)
        assert row in header


def test_the_digits_header_has_the_figures_of_its_record() -> None:
    (record,) = (RECIPES.parent / "model_cards").glob("*-on-digits-lt-*-ratio-50-*-adversarial-seed-0/run.json")
    notes = json.loads(record.read_text(encoding="utf-8"))["model"]["notes"]
    header = (RECIPES / "digits_lt.py").read_text(encoding="utf-8")
    readme = (RECIPES.parent / "README.md").read_text(encoding="utf-8")
    assert [note.partition(", mean ±")[0] for note in notes] == list(ROWS)
    for note in notes:
        for figure in re.findall(r"[\d.]+ ± [\d.]+", note.partition(":")[2]):
            assert figure in header
            assert figure in readme


def test_official_lists_are_read(run) -> None:
    assert load_classifier(run("imagenet_lt")[0] / "model").label_names[0] == "tench, Tinca tinca"
    assert load_classifier(run("places_lt")[0] / "model").label_names == list(PLACES)
    assert load_classifier(run("inat2018")[0] / "model").label_names[5] == "Species 5"
    assert run("cifar_lt")[1].startswith("CIFAR-100-LT: 163 training images, 6 classes, largest 100, smallest 1")


def test_image_folder_tells_the_few_shot_classes_and_holds_images_out(run) -> None:
    folder, printed = run("image_folder")
    assert "45 training, no validation, 11 test images, 6 classes, imbalance ratio 8" in printed
    assert "Few-shot classes: alley, amphitheater" in printed
    answer = pipeline("image-classification", model=str(folder / "model"), top_k=6)(class_picture(0, 999))
    assert {entry["label"] for entry in answer} == set(PLACES)


@pytest.mark.parametrize("name", ["digits_lt", "cifar_lt"])
def test_pipeline_on_raw_images_equals_the_trainer(run, name) -> None:
    folder, _ = run(name)
    if name == "digits_lt":
        folder = folder / "seed0" / "ccsam"
        test = load_benchmark("digits-lt").test
    else:
        test = load_benchmark("cifar100-lt", data_dir=folder / "images", subset=True).test
    stored = Predictions.load(folder / "model")
    classify = pipeline("image-classification", model=str(folder / "model"), top_k=1)
    answers = [answer[0]["label"] for answer in classify(list(test["image"]), batch_size=100)]
    assert len(answers) == len(test) == len(stored.columns["prediction"])
    assert len(set(answers)) > 1
    np.testing.assert_array_equal(answers, np.array(stored.label_names)[stored.columns["prediction"]])
