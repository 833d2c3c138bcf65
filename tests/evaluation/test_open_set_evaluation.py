"""Open-set evaluation of a model: fitted scorers, thresholds and refusals."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ccsam_hf.evaluation import EvaluationOptions, OpenSet, OpenSetOptions, evaluate_model
from ccsam_hf.evaluation.open_recognition import OPEN_SCORERS
from ccsam_hf.metrics.open_set import f_measures, reject

OPTIONS = EvaluationOptions(progress=False, batch_size=16, bootstrap=0)


def test_scores_against_all_features_at_once(tiny, tmp_path) -> None:
    model, known, opened, training = tiny.model(), tiny.data(40), tiny.data(25, 1, 3.0), tiny.data(90, 2)
    open_set = OpenSet(opened, training=training, options=OpenSetOptions(OPEN_SCORERS))
    found = evaluate_model(model, known, options=OPTIONS, open_set=open_set, output_dir=tmp_path)
    columns = found.open_columns
    assert columns["label"].tolist() == [item["labels"] for item in known] + [-1] * 25

    with torch.no_grad():
        features = [model.body(torch.stack([i["pixel_values"] for i in data])) for data in (training, known + opened)]
    labels = torch.tensor([item["labels"] for item in training])
    means = torch.stack([features[0][labels == c].mean(0) for c in range(6)]).double()
    cosine = torch.nn.functional.cosine_similarity(features[1].double()[:, None], means[None], dim=2).amax(1)
    np.testing.assert_allclose(columns["score_cosine"], cosine, atol=1e-5)
    np.testing.assert_allclose(columns["score_euclidean"], -torch.cdist(features[1].double(), means).amin(1), atol=1e-5)

    logits, _ = tiny.logits_and_labels(model, known + opened)
    np.testing.assert_allclose(columns["score_probability"], logits.softmax(1).amax(1), atol=1e-6)
    for name, figures in found.metrics["open_set"].items():
        assert figures["auroc"] == pytest.approx(roc_auc_score(columns["label"] >= 0, columns[f"score_{name}"]))
        assert ("f_measure" in figures) == (name in ("probability", "product", "openmax"))
        assert (tmp_path / "figures" / f"open_set_{name}.png").exists()
    fixed = found.metrics["open_set"]["probability"]
    decided = reject(columns["prediction"], columns["score_probability"], 0.1)
    assert fixed["f_measure"] == f_measures(decided, columns["label"], 6)["f_measure"]
    assert (fixed["threshold"], fixed["threshold_rule"]) == (0.1, "fixed")
    assert not model.head._forward_pre_hooks


def test_thresholds_come_from_the_hold_out(tiny) -> None:
    model, holdout, open_holdout = tiny.model(), tiny.data(60, 3), tiny.data(30, 4, 3.0)
    chosen = OpenSetOptions(("energy",), holdout_recall=0.9)
    open_set = OpenSet(tiny.data(25, 1, 3.0), holdout=holdout, options=chosen)
    figures = evaluate_model(model, tiny.data(40), options=OPTIONS, open_set=open_set).metrics["open_set"]["energy"]
    logits, _ = tiny.logits_and_labels(model, holdout)
    energy = logits.logsumexp(1)
    assert figures["threshold"] == pytest.approx(float(energy.sort(descending=True).values[53]), abs=1e-5)
    assert figures["threshold_rule"] == "accepts 0.9 of the known hold-out images"

    open_set = OpenSet(
        tiny.data(25, 1, 3.0), holdout=holdout, open_holdout=open_holdout, options=OpenSetOptions(("energy",))
    )
    figures = evaluate_model(model, tiny.data(40), options=OPTIONS, open_set=open_set).metrics["open_set"]["energy"]
    logits, labels = tiny.logits_and_labels(model, holdout + open_holdout)
    labels[60:] = -1
    best = max(
        f_measures(reject(logits.argmax(1), logits.logsumexp(1), t), labels, 6)["f_measure"]
        for t in logits.logsumexp(1).tolist()
    )
    at_chosen = reject(logits.argmax(1), logits.logsumexp(1), figures["threshold"] - 1e-6)
    assert f_measures(at_chosen, labels, 6)["f_measure"] == pytest.approx(best)
    assert figures["threshold_rule"] == "best f_measure on the hold-out"


def test_labels_of_open_images_are_not_looked_at(tiny) -> None:
    opened = tiny.data(5, 1)
    foreign = [{"pixel_values": item["pixel_values"], "label": 4711} for item in opened]
    figures = [
        evaluate_model(tiny.model(), tiny.data(9), options=OPTIONS, open_set=OpenSet(images)).metrics
        for images in (opened, foreign)
    ]
    assert figures[0] == figures[1]


def test_refusals(tiny) -> None:
    opened = tiny.data(5, 1)
    open_set = OpenSet(opened, options=OpenSetOptions(("probability", "cosine", "openmax")))
    with pytest.raises(ValueError, match="cosine, openmax are fitted on training images"):
        evaluate_model(tiny.model(), tiny.data(5), options=OPTIONS, open_set=open_set)
    with pytest.raises(ValueError, match=r"\['magic'\] are unknown; choose from probability"):
        OpenSetOptions(("magic",))
    with pytest.raises(ValueError, match="open_holdout without holdout"):
        OpenSet(opened, open_holdout=opened)
    with pytest.raises(ValueError, match=r"threshold=0\.3 has no effect"):
        OpenSet(opened, holdout=opened, options=OpenSetOptions(threshold=0.3))
    with pytest.raises(ValueError, match="tail_size=5 has no effect"):
        OpenSet(opened, options=OpenSetOptions(tail_size=5))
    with pytest.raises(ValueError, match="the split is empty"):
        evaluate_model(tiny.model(), tiny.data(5), options=OPTIONS, open_set=OpenSet([]))
