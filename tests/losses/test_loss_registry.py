"""Losses by name: what is accepted, what is refused and why."""

import pytest
import torch

from ccsam_hf.losses import LOSSES, build_loss

COUNTS = [50, 20, 8, 3, 1]


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_name_builds_with_its_listed_defaults(name):
    entry = LOSSES[name]
    given = dict.fromkeys(entry.required, 3)
    loss = build_loss(name, COUNTS, 5, **entry.arguments | given)
    assert type(loss) is entry.loss
    assert entry.reference


@pytest.mark.parametrize("name", [n for n, entry in LOSSES.items() if entry.loss.needs_class_counts])
def test_counts_are_demanded_where_the_formula_has_them(name):
    given = dict.fromkeys(LOSSES[name].required, 3)
    with pytest.raises(ValueError, match="class counts: pass class_counts="):
        build_loss(name, None, 5, **given)
    with pytest.raises(ValueError, match=r"needs 5 class counts, got shape \(2,\)"):
        build_loss(name, [3, 4], 5, **given)
    if name != "label_aware_smoothing":
        with pytest.raises(ValueError, match=r"class 1 \(0\), class 3 \(0\): drop these classes"):
            build_loss(name, [3, 0, 4, 0, 1], 5, **given)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "label_smoothing"])
def test_counts_are_optional_elsewhere_until_there_are_weights(name):
    assert build_loss(name, None, 5).class_counts is None
    with pytest.raises(ValueError, match="weighting='inverse_frequency' needs the training set's class counts"):
        build_loss(name, None, 5, weighting="inverse_frequency")
    with pytest.raises(ValueError, match=r"needs at least 1 .* class 1 \(0\)"):
        build_loss(name, [3, 0], 2, weighting="inverse_frequency")


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "crossentropy",
            {},
            "Unknown loss 'crossentropy': did you mean 'cross_entropy'. Choose one of cross_entropy, focal",
        ),
        ("focal", {"tau": 1.0}, "loss 'focal' has no argument tau; it accepts beta, drw_epoch, gamma, weighting"),
        ("balanced_softmax", {"tau": 1.0}, "has no argument tau"),
        ("focal", {"gamma": -1}, "gamma must be a number, at least 0"),
        ("focal", {"gamma": float("nan")}, "gamma must be a number"),
        ("focal", {"gamma": "2"}, "gamma must be a number"),
        ("vs", {"gamma": -0.1}, "gamma must be a number, at least 0"),
        ("logit_adjustment", {"tau": float("inf")}, "tau must be a number, at least 0 and a finite number"),
        ("logit_margin", {"mean_margin": -1}, "mean_margin must be a number, at least 0"),
        ("label_smoothing", {"epsilon": 1.0}, "epsilon must be a number, at least 0 and below 1"),
        ("label_smoothing", {"convention": "torch"}, "unknown convention 'torch'; choose from others, uniform"),
        ("label_aware_smoothing", {"epsilon_head": 0.1, "epsilon_tail": 0.2}, "epsilon_tail=0.2 must not exceed"),
        ("label_aware_smoothing", {"shape": "step"}, "unknown shape 'step'; choose from concave, linear, convex"),
        ("label_aware_smoothing", {"shape": "exponential"}, "power belongs to shape='exponential'"),
        ("label_aware_smoothing", {"power": 2.0}, "power belongs to shape='exponential'"),
        ("ldam", {"scale": 0}, "scale must be a number"),
        ("ldam", {"max_margin": -0.5}, "max_margin must be a number"),
        ("gcl", {"noise_scale": -1}, "noise_scale must be a number"),
        ("lade", {"alpha": None}, "alpha must be a number"),
        ("lade", {"importance": "class"}, "unknown importance 'class'; choose from sample, column"),
        ("ldam_drw", {}, "loss 'ldam_drw' needs drw_epoch"),
        ("ldam_drw", {"drw_epoch": -1}, "drw_epoch must be a whole number of epochs"),
        ("ldam_drw", {"drw_epoch": 1.5}, "drw_epoch must be a whole number of epochs"),
        ("ldam", {"drw_epoch": 5}, "drw_epoch=5 has no effect without class weights"),
        ("ldam", {"beta": 0.9}, "beta=0.9 has no effect without class weights"),
        ("focal", {"weighting": "sqrt"}, "unknown weighting 'sqrt'; choose from effective_number, inverse_frequency"),
        (
            "focal",
            {"weighting": "inverse_frequency", "beta": 0.9},
            "beta has no effect on weighting='inverse_frequency'",
        ),
        ("class_balanced", {"beta": 1.0}, "beta must be a number, at least 0 and below 1, got 1.0"),
        ("class_balanced", {"beta": "0.9"}, "beta must be a number, at least 0 and below 1, got '0.9'"),
    ],
)
def test_bad_arguments_are_refused_with_the_choices(name, args, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, COUNTS, 5, **args)


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="at least 2 classes"):
        build_loss("cross_entropy", [4], 1)
    with pytest.raises(ValueError, match="whole numbers"):
        build_loss("balanced_softmax", torch.tensor([1.5, 2.0]), 2)
    with pytest.raises(ValueError, match=r"class 0 \(-1\)"):
        build_loss("label_aware_smoothing", [-1, 2], 2)
    many = [0] * 9 + [1]
    with pytest.raises(ValueError, match=r"class 4 \(0\), \.\.\.: drop"):
        build_loss("balanced_softmax", many, 10)
    assert build_loss("label_aware_smoothing", [0, 2], 2).class_counts.tolist() == [0, 2]


@pytest.mark.parametrize(("epoch", "active"), [(0, False), (159, False), (159.99, False), (160, True), (160.5, True)])
def test_deferred_weights_start_at_their_epoch(epoch, active):
    loss = build_loss("ldam_drw", COUNTS, 5, drw_epoch=160)
    weights = loss.class_weights(epoch)
    assert (weights is not None) == active
    if active:
        assert weights.sum().item() == pytest.approx(5)
        assert weights.tolist() == sorted(weights.tolist())


def test_a_schedule_beyond_the_run_is_refused():
    loss = build_loss("ldam_drw", COUNTS, 5, drw_epoch=160)
    loss.check_epochs(200)
    with pytest.raises(ValueError, match="drw_epoch=160 lies beyond the run of 160 epochs"):
        loss.check_epochs(160)
    build_loss("ldam", COUNTS, 5).check_epochs(1)
