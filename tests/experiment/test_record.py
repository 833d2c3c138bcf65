"""What a run's card and record tell of it, and what of the machine they do not."""

import getpass
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import yaml

from ccsam_hf.data import load_benchmark
from ccsam_hf.experiment import parse_settings
from ccsam_hf.experiment.cifar import RECIPE as CIFAR
from ccsam_hf.experiment.command import shown_command
from ccsam_hf.experiment.digits import RECIPE as DIGITS
from ccsam_hf.experiment.paper import paper_figures
from ccsam_hf.hub import RunRecord, publishable_files
from ccsam_hf.hub.private import PrivateStrings, private_traces


def test_the_model_folder_tells_command_date_and_nothing_of_the_machine(digits, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "a-secret-of-this-session")
    secret = ["--hub_token", "hf_abcdefghijklmnopqrstuvwxyz"]
    digits(tmp_path / "run", "--control", "false", "--max_steps", "2", "--seed", "3", *secret)
    model = tmp_path / "run" / "model"
    record = RunRecord.load(model)
    assert record.command is not None
    assert record.command.startswith("python -m ccsam_hf digits --smoke --use_cpu true")
    assert record.command.endswith("--output_dir run --control false --max_steps 2 --seed 3")
    assert f"```bash\n{record.command}\n```" in (model / "README.md").read_text()
    assert record.date == datetime.now(UTC).date().isoformat()
    assert [stage.role for stage in record.stages] == ["stage1", "stage2"]
    assert record.paper is None
    published = publishable_files(model)
    assert {"README.md", "run.json", "metrics.json", "config.json", "model.safetensors"} <= set(published)
    assert private_traces(model, published, PrivateStrings.of_this_machine(model, secret[1])) == []
    for file in published:
        content = (model / file).read_bytes()
        assert str(tmp_path).encode() not in content, file
        assert secret[1].encode() not in content, file
    assert secret[1] not in json.dumps(yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text()))
    assert getpass.getuser() == "root" or getpass.getuser() not in record.to_json()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--data_dir", "/home/ada/photos", "--lr_decay=0.1"], "--data_dir photos --lr_decay=0.1"),
        (["--hub_token=abc", "--seed", "1"], "--seed 1"),
        (["--hub-token", "abc", "--push_to_hub_token", "abc", "--seed", "1"], "--seed 1"),
        (["--stage2.hub_token", "abc"], ""),
    ],
)
def test_shown_command(words, shown) -> None:
    assert shown_command("cifar100-lt", words) == f"python -m ccsam_hf cifar {shown}".strip()
    assert shown_command("unknown", words) is None


def test_the_papers_figures_stand_beside_its_own_row_only(tmp_path) -> None:
    digits = load_benchmark("digits-lt")
    record = replace(digits.record, name="cifar100-lt")

    def found(*flags: str, ratio: float = 100) -> dict[str, float] | None:
        settings = parse_settings(CIFAR.defaults, ["--output_dir", str(tmp_path), "--use_cpu", "true", *flags])
        return paper_figures(settings, replace(digits, record=record, settings={"imbalance_ratio": ratio}))

    assert found() == {"accuracy": 0.5083}
    assert found(ratio=200) == {"accuracy": 0.4566}
    assert found(ratio=10) is None
    for other in (
        ["--perturbation", "sam", "--radius", "0.05"],
        ["--model", "cifar_resnet20"],
        ["--loss", "balanced_softmax"],
        ["--stage2.rule", "ncm"],
        ["--holdout"],
        ["--subset"],
    ):
        assert found(*other) is None, other


def test_a_push_that_fails_leaves_the_trained_model_and_says_how_to_go_on(digits, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ccsam_hf.hub.push.get_token", lambda: None)
    flags = ["--max_steps", "1", "--control", "false", "--second_stage", "false"]
    quick = ["--smoke", "--use_cpu", "true", "--output_dir", str(tmp_path), *flags]
    with pytest.raises(SystemExit, match=r"there is no token(.|\n)*python -m ccsam_hf push .*model ada/digits"):
        DIGITS.run([*quick, "--push_to_hub", "true", "--hub_model_id", "ada/digits"])
    assert "model-index" in (tmp_path / "model" / "README.md").read_text()
