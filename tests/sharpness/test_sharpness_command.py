"""The command, as a user types it."""

import json

import pytest

from ccsam_hf.data import load_benchmark
from ccsam_hf.models import create_model
from ccsam_hf.sharpness.cli import main
from ccsam_hf.sharpness.measure import distinct_labels

FAST = [
    "--samples=40",
    "--few_samples=20",
    "--levels=3",
    "--seeds=1",
    "--measures",
    "noise",
    "radii",
    "--scopes=classifier",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two untrained networks where runs leave them, one of which records a hold-out's class counts."""
    folder = tmp_path_factory.mktemp("runs")
    for name, holdout in (("one", False), ("two", False), ("held", True)):
        data = load_benchmark("digits-lt", holdout=holdout)
        record = data.record
        prepared = {"input_size": record.input_size, "mean": record.mean, "std": record.std}
        model = create_model("cifar_resnet20", 10, label_names=data.label_names, **prepared)
        model.config.class_counts = data.class_counts.tolist()
        model.save_pretrained(folder / name / "model")
    return folder


def test_command_compares_two_runs(runs, tmp_path, capsys):
    models = [str(runs / name / "model") for name in ("one", "two")]
    report = main(["--model", *models, "--benchmark", "digits-lt", "--output_dir", str(tmp_path), *FAST])
    assert capsys.readouterr().out.splitlines()[-1] == f"Report: {report}"
    text = report.read_text(encoding="utf-8")
    assert "| one-model | all |" in text
    assert "| two-model | few |" in text
    assert str(runs) not in text
    stored = list(tmp_path.glob("data/one-model/noise-classifier-random-*.json"))
    assert len(stored) == 1
    assert json.loads(stored[0].read_text(encoding="utf-8"))["settings"]["class_counts"][0] == 128
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line.partition("](")[2].rstrip(")")).is_file(), line


def test_a_checkpoint_of_a_holdout_is_analysed_on_it_alone(runs, tmp_path):
    command = ["--model", str(runs / "held" / "model"), "--benchmark", "digits-lt", "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match="are not those of the benchmark's training set"):
        main([*command, *FAST])
    with pytest.raises(ValueError, match="digits-lt has no validation set; use --split test, or --holdout"):
        main([*command, *FAST, "--split", "validation"])
    few = ["--samples", "40", "--few_samples", "20", "--measures", "noise", "--scopes", "classifier"]
    report = main([*command, *few, "--holdout", "--split", "validation"])
    assert "Split: digits-lt validation" in report.read_text(encoding="utf-8")


def test_labels_tell_the_folders_apart():
    assert distinct_labels(["runs/a/model", "ada/net"]) == ["model", "net"]
    assert distinct_labels(["runs/a/model", "runs/b/model"]) == ["a-model", "b-model"]
    assert distinct_labels(["/x/a/run/model", "/y/b/run/model"]) == ["a-run-model", "b-run-model"]
    assert distinct_labels(["m", "m"]) == ["m", "m"]
