"""What a run's card and record tell of it, and what of the machine they do not."""

import getpass
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import yaml

from ccsam_hf.data import BENCHMARKS, load_benchmark
from ccsam_hf.experiment import parse_settings
from ccsam_hf.experiment.cifar import RECIPE as CIFAR
from ccsam_hf.experiment.command import shown_command
from ccsam_hf.experiment.digits import RECIPE as DIGITS
from ccsam_hf.experiment.imagenet import RECIPE as IMAGENET
from ccsam_hf.experiment.inaturalist import RECIPE as INATURALIST
from ccsam_hf.experiment.paper import paper_row
from ccsam_hf.experiment.places import RECIPE as PLACES
from ccsam_hf.hub import RunRecord, publishable_files
from ccsam_hf.hub.publishable import MachineStrings, machine_traces


def test_the_model_folder_tells_command_date_and_nothing_of_the_machine(digits, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "a-secret-of-this-session")
    secret = ["--hub_token", "hf_abcdefghijklmnopqrstuvwxyz"]
    digits(tmp_path / "run", "--control", "false", "--max_steps", "2", "--seed", "3", *secret)
    model = tmp_path / "run" / "model"
    record = RunRecord.load(model)
    assert record.command is not None
    assert record.command.startswith("python -m ccsam_hf digits --smoke --use_cpu true")
    assert record.command.endswith("--output_dir run --control false --max_steps 2 --seed 3")
    assert f"```bash\n{record.command}\n```" in (model / "README.md").read_text(encoding="utf-8")
    assert record.date == datetime.now(UTC).date().isoformat()
    assert [stage.role for stage in record.stages] == ["stage1", "stage2"]
    assert record.paper is None
    published = publishable_files(model)
    assert {"README.md", "run.json", "metrics.json", "config.json", "model.safetensors"} <= set(published)
    assert machine_traces(model, published, MachineStrings.of_this_machine(model, secret[1])) == []
    for file in published:
        content = (model / file).read_bytes()
        assert str(tmp_path).encode() not in content, file
        assert secret[1].encode() not in content, file
    assert secret[1] not in json.dumps(yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text(encoding="utf-8")))
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

    def found(*flags: str, ratio: float = 100) -> float | None:
        settings = parse_settings(CIFAR.defaults, ["--output_dir", str(tmp_path), "--use_cpu", "true", *flags])
        row = paper_row(settings, replace(digits, record=record, settings={"imbalance_ratio": ratio}))
        return None if row is None else row.overall

    assert found() == 50.83
    assert found(ratio=200) == 45.66
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


@pytest.mark.parametrize(
    ("recipe", "name", "network", "figures"),
    [
        (IMAGENET, "imagenet-lt", "resnext50_32x4d", (55.4, 63.1, 53.4, 41.1)),
        (IMAGENET, "imagenet-lt", "resnet50", (52.4, 61.4, 49.5, 37.1)),
        (PLACES, "places-lt", "resnet152.tv_in1k", (40.6, 41.2, 42.1, 36.4)),
        (INATURALIST, "inat2018", "resnet50", (70.9, 65.4, 70.9, 72.2)),
    ],
)
def test_cards_of_the_large_sets_show_all_four_figures(tmp_path, recipe, name, network, figures) -> None:
    digits = load_benchmark("digits-lt")
    settings = parse_settings(recipe.defaults, ["--output_dir", str(tmp_path), "--use_cpu", "true", "--model", network])
    row = paper_row(settings, replace(digits, record=BENCHMARKS[name]))
    assert row is not None
    assert row.source == "Zhou et al., CVPR 2023, Table 3"
    assert (row.overall, row.many, row.medium, row.few) == figures
    assert row.fractions() == {
        key: pytest.approx(value / 100)
        for key, value in zip(("accuracy", "many", "medium", "few"), figures, strict=True)
    }


def test_a_push_that_fails_leaves_the_trained_model_and_says_how_to_go_on(digits, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("ccsam_hf.hub.push.get_token", lambda: None)
    flags = ["--max_steps", "1", "--control", "false", "--second_stage", "false"]
    quick = ["--smoke", "--use_cpu", "true", "--output_dir", str(tmp_path), *flags]
    with pytest.raises(SystemExit, match=r"there is no token(.|\n)*python -m ccsam_hf push .*model ada/digits"):
        DIGITS.run([*quick, "--push_to_hub", "true", "--hub_model_id", "ada/digits"])
    assert "model-index" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
