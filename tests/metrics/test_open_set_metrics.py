"""Open-set figures by hand and against scikit-learn; scorers against slow references; OpenMax against scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import weibull_min
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from ccsam_hf.metrics.open_set import (
    ClassSums,
    cosine_similarity,
    detection_figures,
    euclidean_similarity,
    f_measures,
    fit_openmax,
    fit_weibull,
    maximum_logit,
    maximum_probability,
    negative_energy,
    open_set_figures,
    probability_times_similarity,
    reject,
    roc_curve,
    threshold_for_f,
    threshold_for_recall,
)

RNG = np.random.default_rng(0)
# Known: two right, one wrong, one rejected. Open: two rejected, one accepted.
DECIDED, TRUTH = [0, 1, 1, -1, -1, -1, 0], [0, 1, 0, 1, -1, -1, -1]


def test_both_f_definitions_on_a_worked_example() -> None:
    figures = f_measures(DECIDED, TRUTH, 2)
    assert figures["recall"] == pytest.approx(2 / 3)
    assert figures["precision"] == pytest.approx(2 / 4)  # the rejected known image counts
    assert figures["precision_before_2020"] == pytest.approx(2 / 3)
    assert figures["f_measure"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert figures["f_measure_before_2020"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("truth", [[-1, -1], [0, 1]])
def test_all_rejected(truth: list[int]) -> None:
    assert set(f_measures([-1, -1], truth, 2).values()) == {0.0}


def test_none_rejected_is_the_baseline() -> None:
    figures = open_set_figures([0, 0, 1], [0, -1, -1], [0.9, 0.8, 0.7], 0.1, [500, 3])
    assert figures["f_measure"] == figures["f_measure_never_rejecting"] == figures["f_measure_before_2020"] == 0.5
    assert (figures["rejected_known"], figures["rejected_open"]) == (0.0, 0.0)
    assert (figures["many"], figures["few"]) == (1.0, None)


def test_rejection_is_an_error_for_the_groups() -> None:
    figures = open_set_figures([0, 0, 1, 1], [0, 0, 1, -1], [0.9, 0.05, 0.7, 0.01], 0.1, [500, 3])
    assert (figures["many"], figures["few"], figures["accuracy"]) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (figures["rejected_known"], figures["rejected_open"]) == (pytest.approx(1 / 3), 1.0)


def test_only_below_the_threshold_is_rejected() -> None:
    assert reject([3, 4], [0.1, 0.0999], 0.1).tolist() == [3, -1]


def test_docstring_example_of_never_rejecting() -> None:
    assert f_measures([0] * 11, [0] * 10 + [-1], 1)["f_measure"] == pytest.approx(20 / 21)


@pytest.mark.parametrize("decimals", [8, 1])  # one decimal: many ties
def test_detection_against_scikit_learn(decimals: int) -> None:
    known = RNG.random(120) < 0.6
    scores = np.round(RNG.normal(size=120) + known, decimals)
    figures = detection_figures(scores, np.where(known, 0, -1))
    assert figures["auroc"] == pytest.approx(roc_auc_score(known, scores))
    assert figures["aupr_known"] == pytest.approx(average_precision_score(known, scores))
    assert figures["aupr_open"] == pytest.approx(average_precision_score(~known, -scores))
    false_rate, true_rate, _ = sklearn_roc(known, scores, drop_intermediate=False)
    assert figures["fpr_at_95_tpr"] == pytest.approx(false_rate[true_rate >= 0.95 - 1e-12][0])
    _, ours_false, ours_true = roc_curve(scores[known], scores[~known])
    np.testing.assert_allclose(ours_false, false_rate[1:])
    np.testing.assert_allclose(ours_true, true_rate[1:])


def test_detection_needs_both_kinds() -> None:
    assert set(detection_figures([0.1, 0.2], [0, 1]).values()) == {None}
    assert set(detection_figures([0.1, 0.2], [-1, -1]).values()) == {None}
    assert detection_figures([0.5, 0.5], [0, -1])["auroc"] == 0.5


def test_threshold_for_recall_accepts_that_share() -> None:
    scores = np.arange(20.0)
    assert threshold_for_recall(scores, 0.95) == 1.0
    assert threshold_for_recall(scores, 1.0) == 0.0
    with pytest.raises(ValueError, match="known hold-out images"):
        threshold_for_recall([], 0.95)


def test_threshold_for_f_beats_every_other() -> None:
    truth = np.where(RNG.random(80) < 0.5, RNG.integers(0, 3, 80), -1)
    guesses, scores = RNG.integers(0, 3, 80), np.round(RNG.random(80) + (truth >= 0) * 0.4, 2)
    chosen = threshold_for_f(guesses, truth, scores, 3)
    values = {t: f_measures(reject(guesses, scores, t), truth, 3)["f_measure"] for t in np.unique(scores)}
    assert values[chosen] == pytest.approx(max(values.values()))
    with pytest.raises(ValueError, match="both known and open"):
        threshold_for_f([0], [0], [0.5], 1)


def test_bad_scores() -> None:
    with pytest.raises(ValueError, match="1 open-set scores are NaN"):
        reject([0], [float("nan")], 0.1)
    with pytest.raises(ValueError, match="2 scores for 1 references"):
        detection_figures([0.1, 0.2], [0])


def test_logit_scores_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert maximum_probability(logits).item() == pytest.approx(0.75)
    assert maximum_logit(logits).item() == pytest.approx(math.log(3.0))
    assert negative_energy(logits).item() == pytest.approx(math.log(4.0))


def test_prototype_scores_against_loops_and_ignore_empty_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(30, 4, generator=generator), torch.randint(0, 3, (30,), generator=generator)
    logits = torch.randn(5, 4, generator=generator, dtype=torch.double)
    means = (ClassSums.of(features[:11], labels[:11], 4) + ClassSums.of(features[11:], labels[11:], 4)).means()
    slow = torch.stack([features[labels == c].double().mean(0) for c in range(3)])
    torch.testing.assert_close(means[:3], slow, atol=1e-8, rtol=0)
    assert means[3].isnan().all()
    for i, z in enumerate(features[:5].double()):
        distances = [float((z - m).norm()) for m in slow]
        cosines = [float(z @ m / z.norm() / m.norm()) for m in slow]
        products = [float(p) * max(c, 0) for p, c in zip(logits[i].softmax(0)[:3], cosines, strict=True)]
        one = features[i : i + 1]
        assert euclidean_similarity(one, means).item() == pytest.approx(-min(distances), abs=1e-6)
        assert cosine_similarity(one, means).item() == pytest.approx(max(cosines), abs=1e-6)
        product = probability_times_similarity(logits[i : i + 1], one, means)
        assert product.item() == pytest.approx(max(products), abs=1e-6)


def test_features_that_cannot_be_summed_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or values beyond 4096"):
        ClassSums.of(torch.tensor([[float("nan")]]), torch.tensor([0]), 1)


@pytest.mark.parametrize("shape", [0.8, 2.0, 7.5])
def test_weibull_fit_against_scipy(shape: float) -> None:
    tail = np.sort(weibull_min.rvs(shape, scale=3.0, size=200, random_state=1))[-40:] + 5
    ours = fit_weibull(tail)
    origin = tail.min() - 1
    expected_shape, _, expected_scale = weibull_min.fit(tail - origin, floc=0)
    assert ours == pytest.approx((expected_shape, expected_scale, origin), rel=1e-3)
    likelihood = weibull_min.logpdf(tail - origin, ours[0], scale=ours[1]).sum()
    assert likelihood >= weibull_min.logpdf(tail - origin, expected_shape, scale=expected_scale).sum() - 1e-6


def test_weibull_of_equal_distances_is_a_step() -> None:
    shape, scale, origin = fit_weibull(np.full(5, 2.0))
    assert (scale, origin) == pytest.approx((1.0, 1.0))
    assert shape > 1000


def test_openmax_against_a_loop() -> None:
    means = torch.randn(4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    distances = [RNG.uniform(1, 3, 30) for _ in range(3)] + [RNG.uniform(1, 3, 2)]
    model = fit_openmax(means, distances, tail_size=10, alpha=2)
    pooled = fit_weibull(np.sort(np.concatenate(distances))[-10:])
    assert (model.tails.shape[3], model.tails.scale[3], model.tails.origin[3]) == pooled
    logits = 2 * torch.randn(6, 4, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    for row, ours in zip(logits, model.known_probability(logits), strict=True):
        revised, unknown = row.clone(), 0.0
        for place, c in enumerate(row.argsort(descending=True)[:2].tolist()):
            x = float((row - means[c]).norm()) - model.tails.origin[c]
            omega = (2 - place) / 2 * weibull_min.cdf(x, model.tails.shape[c], scale=model.tails.scale[c])
            revised[c] = row[c] * (1 - omega)
            unknown += float(row[c]) * omega
        expected = 1 - torch.tensor([*revised.tolist(), unknown], dtype=torch.double).softmax(0)[-1]
        assert ours.item() == pytest.approx(expected.item(), abs=1e-9)


def test_openmax_needs_images() -> None:
    with pytest.raises(ValueError, match="Only 2 training images"):
        fit_openmax(torch.zeros(1, 1), [np.array([1.0, 2.0])])
    with pytest.raises(ValueError, match="tail_size >= 3"):
        fit_openmax(torch.zeros(1, 1), [np.ones(9)], tail_size=2)
