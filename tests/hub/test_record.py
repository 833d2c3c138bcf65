"""The run record: plain, exact, round trip; and how it is filled from the objects that were used."""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ccsam_hf.data import load_benchmark
from ccsam_hf.hub import (
    CardMetadata,
    DataRecord,
    ModelRecord,
    RunRecord,
    StageRecord,
    citations,
    data_record,
    headline_metrics,
    log_summary,
    model_record,
    portable_command,
    stage_record,
    training_record,
    versions,
)
from ccsam_hf.losses import LOSSES
from ccsam_hf.training import CCSAMTrainingArguments


def test_round_trip(record, tmp_path):
    record.save(tmp_path)
    assert RunRecord.load(tmp_path) == record
    assert RunRecord.from_json(record.to_json()).to_json() == record.to_json()
    json.dumps(asdict(record), allow_nan=False)


def test_round_trip_of_a_record_that_knows_nothing(tmp_path):
    bare = RunRecord(ModelRecord("net", "resnet18"))
    bare.save(tmp_path)
    assert RunRecord.load(tmp_path) == bare


def test_the_callers_card_metadata_comes_back_wherever_it_is_read(record, tmp_path, monkeypatch):
    """A base model of the Hub stays one when the record is read beside a folder of that name."""
    metadata = CardMetadata.of_call("en", tags="photographs", finetuned_from="ada/base", dataset=["pictures", None])
    assert (metadata.tags, metadata.datasets, metadata.finetuned_locally) == (("photographs",), ("pictures",), False)
    replace(record, card_metadata=metadata).save(tmp_path)
    (tmp_path / "ada" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert RunRecord.load(tmp_path).card_metadata == metadata
    local = CardMetadata.of_call(finetuned_from=str(tmp_path / "ada" / "base"))
    assert (local.finetuned_from, local.finetuned_locally) == ("base", True)


def test_a_record_of_an_earlier_release_loads_without_card_metadata(record, tmp_path):
    content = json.loads(record.to_json())
    del content["card_metadata"]
    assert RunRecord.from_json(json.dumps(content)) == record


def test_values_become_what_json_gives_back():
    stage = StageRecord("stage1", "CC-SAM", {"milestones": (1, 2)}, metrics={"accuracy": 0.5})
    assert stage.arguments == {"milestones": [1, 2]}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda r: StageRecord("stage1", "m", {"x": torch.ones(1)}), "arguments must hold plain finite values"),
        (lambda r: StageRecord("stage1", "m", {"x": math.nan}), "arguments must hold plain finite values"),
        (lambda r: StageRecord("stage3", "m"), "role is 'stage3'; a stage is one of control, stage1, stage2"),
        (lambda r: StageRecord("stage1", "m", metrics={"accuracy": 71.2}), "fraction of 1: divide per cent by 100"),
        (lambda r: StageRecord("stage1", "m", metrics={"top1": 0.5}), "'top1' is unknown"),
        (lambda r: replace(r, published="control", stages=r.stages[1:]), "published='control', but the record's"),
        (lambda r: replace(r, stages=(*r.stages, r.stages[0])), "each role may stand once"),
        (lambda r: DataRecord("d", "D", class_counts=(1, 2), label_names=("a",)), "2 class_counts and 1 label_names"),
        (lambda r: DataRecord("d", "D", thresholds={"many": 5, "few": 9}), "choose few below many"),
        (lambda r: RunRecord.from_json("{}"), "no run record"),
        (lambda r: RunRecord.from_json('{"model": {"name": "n", "colour": 1}, "stages": []}'), "colour"),
    ],
)
def test_refused(record, make, says):
    with pytest.raises(ValueError, match=says):
        make(record)


def test_missing_record_names_the_folder(tmp_path):
    with pytest.raises(ValueError, match=r"has no run\.json: write it with RunRecord\.save"):
        RunRecord.load(tmp_path)


def test_published_is_the_last_stage_by_default(record):
    assert replace(record, published=None).published_stage == record.stages[-1]
    assert replace(record, published="stage1").published_metrics == record.stages[1].metrics


def test_arguments_of_a_trainer_are_exact_without_the_machine():
    home = str(Path.home() / "experiments")
    args = CCSAMTrainingArguments(
        output_dir=home,
        use_cpu=True,
        relative_radius=0.02,
        learning_rate=0.1,
        loss="ldam_drw",
        loss_args={"drw_epoch": 160},
        lr_milestones=[160, 180],
        hub_token="hf_" + "x" * 30,
        hub_model_id="ada/model",
        run_name=home,
        report_to=[],
        resume_from_checkpoint=f"{home}/checkpoint-5",
    )
    stage = stage_record("stage1", "CC-SAM", args)
    text = json.dumps(asdict(stage))
    assert home not in text
    assert "hf_" not in text
    assert "ada/model" not in text
    assert stage.arguments["relative_radius"] == 0.02
    assert stage.arguments["weight_decay"] == 0.0
    assert stage.arguments["lr_scheduler_type"] == "linear"
    wanted = {"relative_radius", "learning_rate", "loss", "loss_args", "lr_milestones", "use_cpu"}
    assert set(stage.changed) - {"dataloader_pin_memory"} == wanted


def test_record_of_a_training(saved_model):
    args = CCSAMTrainingArguments("out", use_cpu=True, loss="balanced_softmax", seed=3, learning_rate=0.1)
    history = [
        {"loss": 2.0, "epoch": 1.0, "step": 10},
        {"eval_accuracy": 0.4, "eval_loss": 2.0, "epoch": 1.0, "step": 10},
        {"loss": 1.0, "epoch": 2.0, "step": 20},
    ]
    parts = {"log_history": history, "thresholds": args.shots().describe(), "device": "cpu"}
    made = training_record(saved_model, "animals", "stage1", "CC-SAM", args, step=10, **parts)
    assert made.published_metrics == {"accuracy": 0.4}
    assert made.data.class_counts == (500, 200, 90, 20, 4)
    assert made.seed == 3
    assert LOSSES["balanced_softmax"].reference in [citation.text for citation in made.citations]
    assert RunRecord.from_json(made.to_json()) == made
    later = training_record(saved_model, "animals", "stage1", "CC-SAM", args, step=20, **parts)
    assert later.published_metrics is None, "the figures of an earlier checkpoint are not those of this one"


def test_arguments_with_a_path_or_infinity():
    @dataclass
    class Arguments:
        weights: str = "resnet"
        cap: float = 0.1
        steps: list[int] = field(default_factory=list)

    stage = stage_record("stage1", "m", Arguments(weights="/home/ada/weights", cap=math.inf, steps=[3]))
    assert stage.arguments == {"cap": "inf", "steps": [3]}
    assert stage.changed == ("cap", "steps")


def test_figures_of_an_evaluation_and_of_a_trainer(record):
    figures = dict(record.stages[-1].metrics)
    closed = {**figures, "calibration": {"overall": {"ece": figures["ece"]}}, "images": 10}
    del closed["ece"]
    assert headline_metrics({"closed_set": closed, "options": {}}) == figures
    reported = {f"eval_{name}": value for name, value in figures.items() if name not in ("ece", "few")}
    expected = {name: value for name, value in figures.items() if name not in ("ece", "few")}
    assert headline_metrics({**reported, "eval_loss": 1.0, "epoch": 3}) == expected


def test_log_summary_keeps_the_ends():
    history = [{"loss": 1 / (i + 1), "epoch": i, "grad_norm": 3.0} for i in range(100)]
    history.insert(50, {"eval_accuracy": 0.5, "epoch": 50})
    rows = log_summary(history, rows=5)
    assert [row["epoch"] for row in rows] == [0, 25, 50, 74, 99]
    assert set(rows[0]) == {"loss", "epoch"}
    assert log_summary([]) == ()
    assert [row["epoch"] for row in log_summary(history[:2])] == [0, 1]


def test_record_of_a_benchmark():
    data = load_benchmark("digits-lt")
    found = data_record(data)
    assert found.class_counts == tuple(data.class_counts.tolist())
    assert found.label_names == data.label_names
    assert found.thresholds == data.record.thresholds.describe()
    assert found.settings["imbalance_ratio"] == 50
    assert found.test == f"the test set of {data.record.title}: 500 images"


def test_citations_come_from_the_objects_used():
    data = load_benchmark("digits-lt")
    found = citations(data=data, losses=["cross_entropy", "gcl", "gcl"])
    assert [citation.role for citation in found] == ["method", "data", "loss", "package"]
    assert found[1].text == data.record.citation
    assert found[2].text == LOSSES["gcl"].reference
    assert "Class-Conditional Sharpness-Aware" in found[0].bibtex


def test_data_without_a_citation_are_not_cited():
    data = load_benchmark("digits-lt")
    own = replace(data, record=replace(data.record, citation=""))
    assert [citation.role for citation in citations(data=own)] == ["method", "package"]


def test_record_of_a_model(saved_model, record):
    model = model_record(saved_model, "animals")
    assert (model.architecture, model.library, model.training_prior) == ("cifar_resnet20", "timm", "train")
    assert model.preprocessing["mean"] == [0.5, 0.4, 0.3]
    # 270,896 parameters of ResNet-20 with 64 x 5 + 5 in its head, and the BatchNorm buffers.
    assert 270_000 < model.parameters < 275_000
    with pytest.raises(ValueError, match=r"no config\.json"):
        model_record(saved_model.parent)


def test_command_without_folders():
    words = ["python", "-m", "x", "--data_dir", "/home/ada/data set", "--out=/mnt/a/b", "--lr", "0.1", "w/x"]
    assert portable_command(words) == "python -m x --data_dir 'data set' --out=b --lr 0.1 w/x"


def test_versions_are_those_installed():
    assert versions()["torch"] == torch.__version__.split("+")[0]
    assert np.all([name in versions() for name in ("python", "timm", "transformers", "huggingface_hub")])
