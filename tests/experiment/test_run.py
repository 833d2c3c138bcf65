"""Interrupted and resumed experiments, hold-outs, and what is refused before training."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import debug_launcher
from safetensors.torch import load_file

from ccsam_hf.experiment import parse_settings, run_experiment
from ccsam_hf.experiment.digits import RECIPE
from ccsam_hf.experiment.network import new_network
from ccsam_hf.training import CCSAMTrainer, ClassifierTrainer

SAVING = ("--save_strategy", "epoch", "--control", "false")
RESUME = ("--resume_from_checkpoint", "true")


class Killed(BaseException):
    """Stands for the signal that ends a process between two Python instructions."""


def stop_after(monkeypatch, trainer, steps: int) -> None:
    """Kill the run when the trainer begins a step after so many."""
    original, count = trainer.training_step, [0]

    def training_step(self, *args, **kwargs):
        count[0] += 1
        if count[0] > steps:
            raise Killed
        return original(self, *args, **kwargs)

    monkeypatch.setattr(trainer, "training_step", training_step)


def left(folder: Path) -> tuple[dict, dict]:
    return load_file(folder / "model" / "model.safetensors"), json.loads(
        (folder / "metrics.json").read_text(encoding="utf-8")
    )


def assert_equal_runs(one: Path, other: Path) -> None:
    (weights, metrics), (same_weights, same_metrics) = left(one), left(other)
    for name, value in weights.items():
        assert (value == same_weights[name]).all(), name
    assert metrics["results"] == same_metrics["results"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    flags = ["--smoke", "--use_cpu", "true", "--stage2.num_train_epochs", "2", "--output_dir", str(folder), *SAVING]
    RECIPE.run(flags)
    return folder


# 353 training images, 16 a step: 23 steps an epoch, 2 epochs a stage.
@pytest.mark.parametrize(
    ("trainer", "steps", "finished"),
    [(CCSAMTrainer, 30, []), (ClassifierTrainer, 0, ["stage1"]), (ClassifierTrainer, 30, ["stage1"])],
    ids=["inside stage 1", "between the stages", "inside stage 2"],
)
def test_killed_and_resumed_equals_uninterrupted(
    digits, uninterrupted, tmp_path, monkeypatch, capsys, trainer, steps, finished
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, trainer, steps)
        with pytest.raises(Killed):
            digits(tmp_path, *SAVING)
    assert [path.parent.name for path in tmp_path.glob("*/finished.json")] == finished
    assert not (tmp_path / "metrics.json").exists()
    # A checkpoint that was being written when the run was killed is not one to go on from.
    (tmp_path / "stage1" / "checkpoint-999").mkdir()
    capsys.readouterr()
    digits(tmp_path, *SAVING, *RESUME)
    said = capsys.readouterr().out
    assert ("stage 1: finished before, not repeated" in said) == bool(finished)
    assert ("checkpoint-23" in said) == (steps > 0)
    assert_equal_runs(uninterrupted, tmp_path)


def test_data_on_the_device_train_the_same_network(digits, uninterrupted, tmp_path) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    flags = [] if device.type == "cpu" else ["--use_cpu", "false"]
    digits(tmp_path, *SAVING, "--data_on_device", *flags)
    if device.type == "cpu":
        assert_equal_runs(uninterrupted, tmp_path)
    else:
        assert left(tmp_path)[1]["results"]["stage 1"]["accuracy"] > 0.2


def test_a_finished_run_is_not_repeated(digits, uninterrupted, monkeypatch) -> None:
    stop_after(monkeypatch, CCSAMTrainer, 0)
    stop_after(monkeypatch, ClassifierTrainer, 0)
    before = left(uninterrupted)[1]
    found = digits(uninterrupted, *SAVING, *RESUME)
    assert found == before["results"]
    assert left(uninterrupted)[1] == before


def test_a_used_folder_and_other_settings_are_refused(digits, uninterrupted) -> None:
    with pytest.raises(ValueError, match="checkpoints of an earlier run: go on with it by --resume_from_checkpoint"):
        digits(uninterrupted, *SAVING)
    with pytest.raises(ValueError, match=r"begun with other settings: stage1 seed is 1 and was its default"):
        digits(uninterrupted, *SAVING, *RESUME, "--seed", "1", "--stage2.seed", "42")


def test_recorded_settings_repeat_the_run(uninterrupted, tmp_path) -> None:
    file = uninterrupted / "settings.yaml"
    settings = parse_settings({"benchmark": {"benchmark": "digits-lt"}}, ["--config", str(file)])
    assert settings.stage1.learning_rate == 0.02
    assert settings.stage2.num_train_epochs == 2
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["stage1"]["output_dir"] = content["stage2"]["output_dir"] = str(tmp_path)
    content["stage2"]["output_dir"] += "/stage2"
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    again = parse_settings({"benchmark": {"benchmark": "digits-lt"}}, ["--config", str(tmp_path / "again.yaml")])
    run_experiment(again)
    assert_equal_runs(uninterrupted, tmp_path)


def test_a_holdout_is_what_is_evaluated_and_is_said_everywhere(digits, tmp_path, capsys) -> None:
    digits(tmp_path, "--holdout", "--control", "false", "--max_steps", "3")
    said = capsys.readouterr().out
    metrics = left(tmp_path)[1]
    # At most a tenth of the largest class, 128, from every class that has images beyond its draw.
    assert "images held out of training (the test set is untouched)" in said
    assert "held out of training" in metrics["evaluated_on"]
    assert metrics["results"]["stage 1"]["images"] < 500
    about = json.loads((tmp_path / "model" / "metrics.json").read_text(encoding="utf-8"))["about"]
    assert about["split"] == "hold-out of the training set"
    assert list(json.loads((tmp_path / "groups.json").read_text(encoding="utf-8"))["runs"]) == [
        "stage 1 (hold-out)",
        "stage 2 (hold-out)",
    ]
    assert "held out of the training pool" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume_from_checkpoint", "some/folder"], "give true"),
        (["--load_best_model_at_end", "--eval_strategy=epoch", "--save_strategy=epoch"], "figure here is that of the"),
        (["--label_column", "fine"], "use --hub_label_column"),
        (["--perturbation", "none"], "--control: stage 1 is unperturbed itself"),
        (["--push_to_hub"], "--push_to_hub needs --hub_model_id"),
        (["--save_only_model", "--save_strategy", "epoch"], "cannot be resumed"),
        (["--stage2.rule", "nonsense"], "Stage 2: Unknown rule 'nonsense'"),
        (["--radius_scale", "1", "--relative_radius", "1"], "radius_scale"),
        (["--augmentation", "blur"], "Unknown augmentation 'blur'"),
        (["--imbalance_ratio", "0"], "ratio is largest over smallest class, at least 1: got 0"),
        (["--input_size", "0"], "--input_size 0: at least 1 pixel is needed"),
        (
            ["--pretrained", "true"],
            "timm has no weights for --model cifar_resnet20. Train it from scratch by --pretrained",
        ),
        (["--trainable_layers", "stage9"], "--trainable_layers stage9: the network has no such module; it has conv1"),
        (["--data_on_device", "--dataloader_num_workers", "2"], "leave --dataloader_num_workers at 0"),
        (["--data_on_device", "--input_size", "16"], "own size are held in memory; leave it out"),
        (["--model", "cifar_resnet33"], "near names: cifar_resnet32"),
    ],
)
def test_refused_before_training(digits, tmp_path, monkeypatch, flags, message) -> None:
    stop_after(monkeypatch, CCSAMTrainer, 0)
    with pytest.raises(ValueError) as caught:
        digits(tmp_path, *flags)
    assert message in str(caught.value)
    assert "Stage 2" in message or "Stage 2" not in str(caught.value)


def test_an_output_folder_that_is_a_file(digits, tmp_path) -> None:
    file = tmp_path / "results"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match=r"--output_dir \S+results is a file; name a folder"):
        digits(file)
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_key_that_stands_twice_in_a_yaml_file(digits, tmp_path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("stage1:\n  learning_rate: 0.1\n  learning_rate: 0.2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"twice\.yaml cannot be read: .*'learning_rate' is given twice"):
        digits(tmp_path / "run", "--config", str(file))


def test_only_the_named_layers_are_trained(tmp_path) -> None:
    flags = ["--smoke", "--use_cpu", "true", "--control", "false", "--second_stage", "false", "--max_steps", "2"]
    flags += ["--trainable_layers", "layer3", "fc", "--output_dir", str(tmp_path)]
    RECIPE.run(flags)
    settings = parse_settings(RECIPE.defaults, flags)
    start = new_network(settings.benchmark, settings.benchmark.load(), settings.stage1.seed).timm_model
    trained = left(tmp_path)[0]
    for name, value in start.named_parameters():
        moved = not (trained[name] == value).all()
        assert moved == name.startswith(("layer3.", "fc.")), name


def two_processes(folder: str) -> None:
    settings = parse_settings(
        RECIPE.defaults, ["--smoke", "--use_cpu", "true", "--output_dir", folder, "--max_steps=4"]
    )
    assert settings.stage1.world_size == 2
    run_experiment(settings)
    assert settings.stage1.distributed_state.num_processes == 2


@pytest.mark.usefixtures("one_thread")
def test_runs_on_two_processes(tmp_path) -> None:
    debug_launcher(two_processes, args=(str(tmp_path),), num_processes=2)
    metrics = left(tmp_path)[1]
    assert list(metrics["results"]) == ["CE", "stage 1", "stage 2"]
    assert metrics["results"]["stage 2"]["images"] == 500
