"""`evaluate_model` against all logits at once, its files, and label matching."""

import csv
import json

import numpy as np
import pytest
import torch

from ccsam_hf.evaluation import EvaluationOptions, Predictions, compare_predictions, evaluate_model, summary_table
from ccsam_hf.evaluation.checkpoints import match_labels, training_counts
from ccsam_hf.metrics import long_tail_accuracy
from ccsam_hf.metrics.label_shift import target_distribution
from ccsam_hf.metrics.streaming import StreamingMetrics
from ccsam_hf.shots import ShotThresholds

QUIET = {"progress": False, "batch_size": 7, "bootstrap": 20}


def options(**more) -> EvaluationOptions:
    return EvaluationOptions(**{**QUIET, **more})


def test_figures_are_those_of_all_logits_at_once(tiny) -> None:
    model, data = tiny.model(), tiny.data(50)
    found = evaluate_model(model, data, options=options()).metrics
    logits, labels = tiny.logits_and_labels(model, data)
    whole = StreamingMetrics(tiny.counts, ShotThresholds())
    whole.update(logits, labels)
    expected, calibration = whole.compute(), found["closed_set"]["calibration"]["overall"]
    for name, value in long_tail_accuracy(logits.argmax(1), labels, tiny.counts).items():
        assert found["closed_set"][name] == value
    assert found["closed_set"]["top5"] == expected["top5"]
    assert calibration == pytest.approx(expected["calibration"]["overall"], abs=1e-6)  # batches round otherwise
    low, high = found["intervals"]["accuracy"]
    assert low <= found["closed_set"]["accuracy"] <= high


def test_files(tiny, tmp_path) -> None:
    thresholds = ShotThresholds(100, 8, "inclusive")
    evaluation = evaluate_model(
        tiny.model(), tiny.data(50), options=options(thresholds=thresholds), output_dir=tmp_path
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    recorded = {"many": 100, "few": 8, "boundaries": "inclusive"}
    assert metrics["closed_set"]["thresholds"] == metrics["options"]["thresholds"] == recorded
    assert metrics == json.loads(json.dumps(evaluation.metrics))
    with (tmp_path / "per_class.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == tiny.names
    assert [int(row["train_count"]) for row in rows] == tiny.counts
    assert sum(int(row["test_count"]) for row in rows) == 50
    stored = Predictions.load(tmp_path)
    assert (stored.label_names, stored.class_counts) == (tiny.names, tiny.counts)
    assert not any(values.ndim > 1 for values in stored.columns.values())
    for name, values in evaluation.predictions.columns.items():
        np.testing.assert_array_equal(stored.columns[name], values)
    figures = tmp_path / "figures"
    for name in ("class_accuracy", "reliability", "group_confusion", "groups"):
        assert (figures / f"{name}.png").stat().st_size > 5_000
        json.loads((figures / f"{name}.json").read_text(encoding="utf-8"))
    table = summary_table(metrics)
    assert "many >= 100 (2), few <= 8 (2), medium the rest (2)" in table
    assert f"{100 * metrics['closed_set']['few']:.2f}%" in table


def test_predictions_follow_the_data_sets_order(tiny) -> None:
    model, data = tiny.model(), tiny.data(23)
    columns = evaluate_model(model, data, options=options()).predictions.columns
    logits, labels = tiny.logits_and_labels(model, data)
    assert columns["label"].tolist() == labels.tolist()
    assert columns["prediction"].tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(columns["confidence"], logits.softmax(1).amax(1), atol=1e-6)


def test_model_is_left_as_it_was(tiny) -> None:
    model = tiny.model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate_model(model, tiny.data(9), options=options())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_logit_adjustment_enters_every_figure(tiny) -> None:
    model, data = tiny.model(), tiny.data(60)
    found = evaluate_model(model, data, options=options(logit_adjustment=1.0))
    logits, labels = tiny.logits_and_labels(model, data)
    prior = torch.tensor(tiny.counts).double() / sum(tiny.counts)
    adjusted = logits - prior.log()
    assert found.predictions.columns["prediction"].tolist() == adjusted.argmax(1).tolist()
    assert found.predictions.columns["prediction"].tolist() != logits.argmax(1).tolist()
    nll = torch.nn.functional.cross_entropy(adjusted, labels)
    assert found.metrics["closed_set"]["calibration"]["overall"]["nll"] == pytest.approx(float(nll), abs=1e-6)


@pytest.mark.parametrize(("recorded", "chosen"), [("train", None), ("uniform", None), ("uniform", "train")])
@pytest.mark.parametrize("adjustment", [0.0, 1.0])
def test_shifted_test_sets(tiny, recorded, chosen, adjustment) -> None:
    model, data = tiny.model(training_prior=recorded), tiny.data(60)
    targets = ("forward-20", "uniform", "backward-20")
    more = {"targets": targets, "source_prior": chosen, "logit_adjustment": adjustment}
    shifted = evaluate_model(model, data, options=options(**more)).metrics["label_shift"]
    logits, labels = tiny.logits_and_labels(model, data)
    source = tiny.counts if (chosen or recorded) == "train" else [1] * 6
    source = torch.tensor(source).double() / sum(source)
    prior = torch.tensor(tiny.counts).double() / sum(tiny.counts)
    for name in targets:
        weight = target_distribution(name, tiny.counts)[labels] / np.bincount(labels)[labels]
        right = (logits - adjustment * prior.log()).argmax(1) == labels
        replaced = (logits + torch.tensor(target_distribution(name, tiny.counts)).log() - source.log()).argmax(1)
        assert shifted[name]["accuracy"] == pytest.approx(float(weight @ right.numpy()))
        assert shifted[name]["accuracy_with_target_prior"] == pytest.approx(
            float(weight @ (replaced == labels).numpy())
        )


def test_without_a_known_source_prior_nothing_is_replaced(tiny) -> None:
    shifted = evaluate_model(tiny.model(), tiny.data(9), options=options(targets=("uniform",))).metrics["label_shift"]
    assert shifted["uniform"]["accuracy_with_target_prior"] is None


def test_label_names_in_another_order_are_matched(tiny) -> None:
    model, data = tiny.model(), tiny.data(40)
    order = [3, 1, 0, 5, 4, 2]  # the data set calls class order[k] by k
    renamed = [{**item, "labels": order.index(item["labels"])} for item in data]
    names = [tiny.names[c] for c in order]
    counts = [tiny.counts[c] for c in order]
    expected = evaluate_model(model, data, options=options())
    found = evaluate_model(model, renamed, label_names=names, class_counts=counts, options=options())
    assert found.metrics == expected.metrics
    assert found.per_class == expected.per_class


def test_paired_comparison_of_saved_predictions(tiny) -> None:
    first = evaluate_model(tiny.model(), tiny.data(60), options=options()).predictions
    adjusted = evaluate_model(tiny.model(), tiny.data(60), options=options(logit_adjustment=1.0)).predictions
    figures = compare_predictions(first, adjusted, replicates=200)
    right = [predictions.columns["prediction"] == first.columns["label"] for predictions in (first, adjusted)]
    assert figures["accuracy"].difference == pytest.approx(right[0].mean() - right[1].mean())
    other = evaluate_model(tiny.model(), tiny.data(60, seed=1), options=options()).predictions
    with pytest.raises(ValueError, match="different images"):
        compare_predictions(first, other)
    with pytest.raises(ValueError, match="other label names or training counts"):
        compare_predictions(first, Predictions(first.columns, [1] * 6, first.label_names))


def test_bad_data(tiny) -> None:
    model = tiny.model()
    with pytest.raises(ValueError, match="the split is empty"):
        evaluate_model(model, [], options=options())
    with pytest.raises(ValueError, match=r"Labels span .*\.\.6 but there are 6 classes"):
        evaluate_model(model, [{**tiny.data(1)[0], "labels": 6}], options=options())
    with pytest.raises(ValueError, match=r"Labels span -1\.\."):
        evaluate_model(model, [{**tiny.data(1)[0], "labels": -1}], options=options())
    with pytest.raises(ValueError, match="no 'labels'"):
        evaluate_model(model, [{"pixel_values": torch.zeros(3, 2, 2)}], options=options())
    model.head.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        evaluate_model(model, tiny.data(3), options=options())


def test_other_modules_are_refused(tiny) -> None:
    with pytest.raises(ValueError, match="Linear is not a transformers model"):
        evaluate_model(tiny.model().head, tiny.data(3), options=options())


def test_missing_counts_are_asked_for(tiny) -> None:
    with pytest.raises(ValueError, match="pass class_counts"):
        evaluate_model(tiny.model(counts=None), tiny.data(3), options=options())
    found = evaluate_model(tiny.model(counts=None), tiny.data(3), class_counts=tiny.counts, options=options())
    assert found.metrics["closed_set"]["group_sizes"] == {"many": 2, "medium": 2, "few": 2}


def test_other_counts_than_the_checkpoints_warn() -> None:
    with pytest.warns(UserWarning, match="differ from those the checkpoint was trained with"):
        counts = training_counts([5, 6], [7, 8], torch.tensor([1, 0]), 2)
    assert counts.tolist() == [6, 5]
    with pytest.raises(ValueError, match="class_counts has 1 entries"):
        training_counts(None, [7], torch.tensor([0, 1]), 2)
    with pytest.raises(ValueError, match="3 class_counts for 2 classes"):
        training_counts([1, 2, 3], None, torch.tensor([0, 1]), 2)


def test_matching_of_names() -> None:
    assert match_labels(["b", "a"], ["a", "b", "c"], 3).tolist() == [1, 0]
    assert match_labels(None, ["a", "b"], 2).tolist() == [0, 1]
    assert match_labels(["x"], None, 2).tolist() == [0]
    assert match_labels(["a", "a"], ["a", "a"], 2).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"1 of the data set's 2 classes are unknown.*'z'"):
        match_labels(["a", "z"], ["a", "b"], 2)
    with pytest.raises(ValueError, match="some occur twice"):
        match_labels(["b", "a"], ["a", "a"], 2)
    with pytest.raises(ValueError, match="has 3 classes, the checkpoint 2"):
        match_labels(["a", "b", "c"], None, 2)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        EvaluationOptions(batch_size=0)
    with pytest.raises(ValueError, match="no effect with bootstrap=0"):
        EvaluationOptions(bootstrap=0, level=0.9)
    with pytest.raises(ValueError, match="no effect without targets"):
        EvaluationOptions(source_prior="train")
    with pytest.raises(ValueError, match="bootstrap is -1"):
        EvaluationOptions(bootstrap=-1)


def test_absent_predictions_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="No saved predictions"):
        Predictions.load(tmp_path)
