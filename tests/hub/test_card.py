"""The card: whole rendering, figures that machines read back, contradictions refused, stored cards up to date."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from ccsam_hf.hub import (
    CardMetadata,
    ModelRecord,
    RunRecord,
    bare_record,
    cards_command,
    publishable_files,
    render_card,
    render_cards,
    store_card,
    write_card,
)
from ccsam_hf.hub.card import render_index, shown_figures
from ccsam_hf.inference import load_classifier
from ccsam_hf.models import create_model, replace_classifier

EXPECTED = Path(__file__).with_name("expected_card.md")
STORED = Path(__file__).parents[2] / "model_cards"


def test_whole_card(example):
    """Changed on purpose? Then `python tests/hub/expected_card.py` writes the new rendering."""
    assert render_card(example, ["groups"]) == EXPECTED.read_text(encoding="utf-8")


def test_model_index_round_trip(record):
    card = ModelCard(render_card(record))
    found = {result.metric_name: result for result in card.data.eval_results}
    assert [result.metric_value for result in found.values()] == list(record.published_metrics.values())
    assert found["Expected calibration error"].metric_type == "ece"
    assert found["Top-1 accuracy, few-shot classes"].metric_type == "accuracy"
    assert {(r.dataset_type, r.dataset_name, r.dataset_split) for r in found.values()} == {
        ("example/animals", "Animals-LT", "test")
    }
    assert card.data.model_name == record.model.name
    assert card.data.datasets == ["example/animals"]
    assert card.data.license == "apache-2.0"


def test_eval_results_parse_back(folder, record):
    parsing = pytest.importorskip("huggingface_hub._eval_results")
    entries = yaml.safe_load((folder / ".eval_results" / "animals-lt.yaml").read_text(encoding="utf-8"))
    found = parsing.parse_eval_result_entries(entries)
    assert {entry.task_id: entry.value for entry in found} == {
        f"animals-lt_{name}": value for name, value in record.published_metrics.items()
    }
    assert {entry.dataset_id for entry in found} == {"example/animals"}
    assert "few-shot: fewer than 20 (1 classes)" in found[0].notes


def test_groups_without_classes_are_left_out(record):
    stage = replace(record.stages[-1], metrics={**record.published_metrics, "many": None})
    card = ModelCard(render_card(replace(record, stages=(stage,))))
    assert "Top-1 accuracy, many-shot classes" not in [result.metric_name for result in card.data.eval_results]
    assert len(card.data.eval_results) == 5
    assert "| – |" in card.text


def test_never_evaluated(record, tmp_path):
    stages = tuple(replace(stage, metrics=None) for stage in record.stages)
    write_card(tmp_path, replace(record, stages=stages))
    card = ModelCard.load(tmp_path / "README.md")
    assert (
        "## Results\n\nThis checkpoint has not been evaluated: no figures are claimed for it.\n\n## Training"
        in card.text
    )
    assert card.data.eval_results is None
    assert not (tmp_path / ".eval_results" / "animals-lt.yaml").exists()


def test_unevaluated_weights_beside_evaluated_ones(record):
    """A checkpoint of stage 2 that was pushed during training, after an evaluated stage 1."""
    stages = (*record.stages[:2], replace(record.stages[2], metrics=None))
    text = render_card(replace(record, stages=stages))
    assert "has not been evaluated" in text
    assert "| Stage 1: CC-SAM | 71.23 (72.00) |" in text
    assert ModelCard(text).data.eval_results is None


def test_written_files(folder, record):
    stored = RunRecord.load(folder)
    assert stored == replace(record, model=replace(record.model, remote_code="cifar_resnet.py"))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["published"] == "stage2"
    assert metrics["stages"]["stage1"]["few"] == 0.25
    with Image.open(folder / "figures" / "long_tail.png") as picture:
        assert picture.width > 500
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["auto_map"]


def test_an_evaluations_metrics_stay(folder, record):
    (folder / "metrics.json").write_text('{"closed_set": {"accuracy": 0.7123}}', encoding="utf-8")
    write_card(folder, record)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["closed_set"] == {"accuracy": 0.7123}
    assert set(metrics["stages"]) == {"control", "stage1", "stage2"}


def test_writing_twice_changes_nothing(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_card(folder, RunRecord.load(folder))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_record_of_another_model_is_refused(folder, record):
    other = replace(record, data=replace(record.data, class_counts=(9, 8, 7, 6, 5)))
    with pytest.raises(ValueError, match=r"class_counts .* are not those of .*config\.json"):
        write_card(folder, other)
    other = replace(record, data=replace(record.data, label_names=("a", "b", "c", "d", "e")))
    with pytest.raises(ValueError, match=r"label_names .* are not those of"):
        write_card(folder, other)


def test_bare_folder(saved_model):
    bare = bare_record(saved_model, "net")
    assert bare.data.class_counts == (500, 200, 90, 20, 4)
    text = render_card(bare)
    assert "has not been evaluated" in text
    assert "from 500 down to 4 a class" in text


def test_replaced_classifier_is_told_and_keeps_timm_out(saved_model, tmp_path):
    model = create_model("cifar_resnet20", 5, input_size=16)
    replace_classifier(model, "disalign")
    model.save_pretrained(tmp_path)
    write_card(tmp_path, bare_record(tmp_path, "net"))
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "is no linear layer (disalign), so timm cannot load the model" in text
    assert "(`headed_timm.py`)" in text
    assert "timm.create_model" not in text
    assert 'pipeline("image-classification", model=".", trust_remote_code=True)' in text
    assert {"headed_timm.py", "heads.py", "cifar_resnet.py"} <= set(publishable_files(tmp_path))
    assert len(load_classifier(tmp_path, device="cpu").predict(Image.new("RGB", (16, 16)))) == 5


def test_text_models_have_the_pipeline_only():
    model = ModelRecord("reviews", "BertForSequenceClassification", library="transformers", task="text-classification")
    text = render_card(RunRecord(model, repo_id="ada/reviews"))
    assert 'pipeline("text-classification", model="ada/reviews")' in text
    assert "timm.create_model" not in text
    assert ModelCard(text).data.pipeline_tag == "text-classification"


def test_cells_cannot_break_the_table(record):
    stage = replace(record.stages[1], method="a|b\nc")
    assert "| Stage 1: a\\|b c (this checkpoint) |" in render_card(replace(record, stages=(stage,), published=None))


CARD_NAME = "animals-resnet20-ratio-125-stage2-adversarial-features-seed-7"


def test_store_and_render_again(folder, tmp_path):
    card = store_card(folder, tmp_path / "cards")
    assert card == tmp_path / "cards" / CARD_NAME / "README.md"
    first = {path: path.read_bytes() for path in (tmp_path / "cards").rglob("*") if path.is_file()}
    assert not [path for path in first if path.suffix in (".safetensors", ".py")]
    assert [path.parent.name for path in render_cards(tmp_path / "cards")] == [CARD_NAME, "cards"]
    assert {path: path.read_bytes() for path in (tmp_path / "cards").rglob("*") if path.is_file()} == first
    index = (tmp_path / "cards" / "README.md").read_text(encoding="utf-8")
    assert f"| [animals-resnet20]({CARD_NAME}/README.md) | Animals-LT, imbalance ratio 125 |" in index
    assert "71.23 %" in index


def test_stored_cards_of_other_runs_lie_beside_and_have_plain_names(folder, record, tmp_path):
    for seed, name in (
        (7, "net on A-LT (small, 8 x 8)"),
        (8, "net on A-LT (small, 8 x 8)"),
        (8, "Net on A-LT: small 8 x 8"),
    ):
        write_card(folder, replace(record, seed=seed, model=replace(record.model, name=name)))
        store_card(folder, tmp_path / "cards")
    places = sorted(path.name for path in (tmp_path / "cards").iterdir() if path.is_dir())
    rest = "ratio-125-stage2-adversarial-features"
    assert places == [f"net-on-a-lt-small-8-x-8-{rest}-seed-{seed}" for seed in (7, 8)]


def test_cards_command_adds_and_renders(folder, tmp_path, capsys):
    (tmp_path / "cards").mkdir()
    cards_command([str(tmp_path / "cards"), "--add", str(folder)])
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "cards" / CARD_NAME / "README.md"),
        str(tmp_path / "cards" / "README.md"),
    ]
    with pytest.raises(ValueError, match=r"has no run\.json"):
        cards_command([str(tmp_path / "cards"), "--add", str(tmp_path)])


def test_render_cards_of_a_missing_folder(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        render_cards(tmp_path / "none")


@pytest.mark.parametrize("place", sorted(STORED.glob("*/run.json")), ids=lambda path: path.parent.name)
def test_stored_cards_are_what_the_template_renders(place):
    """Otherwise run `python -m ccsam_hf cards`."""
    record = RunRecord.load(place.parent)
    assert (place.parent / "README.md").read_text(encoding="utf-8") == render_card(record, shown_figures(place.parent))
    assert json.loads((place.parent / "metrics.json").read_text(encoding="utf-8"))["stages"] == {
        s.role: s.metrics for s in record.stages
    }


def test_stored_index_lists_them():
    records = {path.parent: RunRecord.load(path.parent) for path in sorted(STORED.glob("*/run.json"))}
    assert (STORED / "README.md").read_text(encoding="utf-8") == render_index(records)


def test_what_the_caller_passes_is_on_the_card_even_of_unknown_data() -> None:
    given = CardMetadata.of_call("en", "mit", "photographs", "ada/base", None, "ada/animals", "Animals", "small")
    record = RunRecord(ModelRecord("net", "resnet18"), license=given.license, card_metadata=given)
    text = render_card(record)
    header = yaml.safe_load(text.split("---\n")[1])
    assert (header["language"], header["license"], header["base_model"]) == ("en", "mit", "ada/base")
    assert header["datasets"] == ["ada/animals"]
    assert "photographs" in header["tags"]
    assert "Fine-tuned from `ada/base`." in text
    assert "Data set: Animals. Configuration: small." in text
    assert "does not say what the model was trained on" not in text
