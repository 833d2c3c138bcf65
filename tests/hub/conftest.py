"""A tiny model folder with a full record, and the local Hub."""

import shutil
from dataclasses import replace

import pytest
import torch
import transformers

from ccsam_hf.hub import Citation, DataRecord, ModelRecord, RunRecord, StageRecord, model_record, write_card
from ccsam_hf.models import create_model

transformers.utils.logging.disable_progress_bar()
NAMES = ("owl", "cat", "emu", "fox", "yak")
COUNTS = (500, 200, 90, 20, 4)
LEFTOVERS = ("training_args.bin", "optimizer.pt", "trainer_state.json", "checkpoint-5/model.safetensors", ".env")
FIGURES = {"accuracy": 0.7123, "many": 0.9, "medium": 0.65, "few": 0.301, "balanced_accuracy": 0.61, "ece": 0.0456}


def save_model(folder, name="cifar_resnet20", training_prior="train"):
    """A network whose random weights give scores far from 0 and 1."""
    torch.manual_seed(0)
    settings = {"input_size": 16, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 1.0}
    model = create_model(name, len(NAMES), label_names=NAMES, **settings)
    torch.nn.init.normal_(model.timm_model.get_classifier().weight, std=0.02)
    model.config.class_counts = list(COUNTS)
    model.config.training_prior = training_prior
    model.save_pretrained(folder)
    return model


def full_record(model):
    """A record with every field set, of no real run."""
    animals = DataRecord(
        name="animals-lt",
        title="Animals-LT",
        source="https://example.org/animals",
        licence="CC BY 4.0",
        hub_dataset="example/animals",
        settings={"imbalance_ratio": 125, "split_seed": 0, "holdout": False},
        class_counts=COUNTS,
        label_names=NAMES,
        test="the test set of Animals-LT: 1,000 images",
    )
    log = tuple({"epoch": float(i), "loss": 1.0 / i, "learning_rate": 0.1} for i in (1, 5, 10))
    arguments = {"learning_rate": 0.1, "num_train_epochs": 10, "relative_radius": 0.01, "seed": 7}
    control = StageRecord("control", "cross entropy", metrics={**FIGURES, "few": 0.2}, wall_time_s=61.0)
    stage1 = StageRecord(
        "stage1",
        "CC-SAM",
        arguments,
        changed=("learning_rate", "relative_radius"),
        metrics={**FIGURES, "few": 0.25},
        paper={"accuracy": 0.72},
        wall_time_s=125.0,
        log=log,
    )
    stage2 = StageRecord("stage2", "adversarial features", {"adversarial_scale": 0.1}, ("adversarial_scale",), FIGURES)
    return RunRecord(
        model=replace(model, notes=("The classifier is folded into one linear layer.",)),
        data=animals,
        stages=(control, stage1, stage2),
        published="stage2",
        seed=7,
        commit="0123456789abcdef0123456789abcdef01234567",
        versions={"ccsam_hf": "0.1.0", "torch": "2.9.0"},
        device="CPU, 2 threads",
        wall_time_s=200.0,
        energy_kwh=0.0123,
        command="python -m ccsam_hf animals --learning_rate 0.1",
        date="2024-05-06",
        paper="Table 1 of the paper",
        license="apache-2.0",
        limits=("Photographs only.",),
        citations=(
            Citation("method", "A. Author (2023). A method.", "@misc{author2023,\n  title = {A method}\n}"),
            Citation("data", "B. Author (2020). Animals."),
            Citation("package", "ccsam_hf."),
        ),
    )


def example_record():
    """What the stored rendering shows: a plugin architecture that lies on the Hub."""
    settings = {"input_size": [3, 16, 16], "crop_pct": 1.0}
    model = ModelRecord("animals-resnet20", "cifar_resnet20", 270_896, preprocessing=settings, training_prior="uniform")
    return full_record(replace(model, remote_code="cifar_resnet.py")).with_repo("ada/animals")


@pytest.fixture(scope="session")
def example():
    return example_record()


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """A plugin architecture's folder as save_pretrained leaves it; copy before changing it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder)
    return folder


@pytest.fixture(scope="session")
def record(saved_model):
    return full_record(model_record(saved_model, "animals-resnet20"))


@pytest.fixture(scope="session")
def make_folder(saved_model, record):
    """Makes a model folder with card, and with what a training leaves beside it and must not be published."""

    def make(place):
        shutil.copytree(saved_model, place)
        write_card(place, record)
        leftovers = (
            "training_args.bin",
            "optimizer.pt",
            "trainer_state.json",
            "checkpoint-5/model.safetensors",
            ".env",
        )
        for name in leftovers:
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(b"left behind")
        return place

    return make


@pytest.fixture
def folder(make_folder, tmp_path):
    return make_folder(tmp_path / "model")
