"""What the losses become in their special cases, and what they have in common."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F
from transformers.trainer_pt_utils import LabelSmoother

from ccsam_hf.losses import LOSSES, Target, build_loss, post_hoc_logit_adjustment

COUNTS = torch.tensor([50, 20, 8, 3, 1])
G = torch.Generator().manual_seed(3)
LOGITS = torch.randn(9, 5, generator=G)
LABELS = torch.randint(5, (9,), generator=G)
PLAIN = Target(LABELS)
CE = F.cross_entropy(LOGITS, LABELS, reduction="none")


def value(name, logits=LOGITS, draw=None, **args):
    return build_loss(name, COUNTS, 5, **args)(logits, PLAIN, draw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cross_entropy_is_torchs_bit_for_bit(dtype):
    logits = LOGITS.to(dtype).requires_grad_(True)
    ours, theirs = value("cross_entropy", logits), F.cross_entropy(logits, LABELS, reduction="none")
    assert torch.equal(ours, theirs)
    assert ours.dtype == theirs.dtype
    (mine,) = torch.autograd.grad(ours.mean(), logits)
    (stock,) = torch.autograd.grad(F.cross_entropy(logits, LABELS), logits)
    assert torch.equal(mine, stock)


def test_special_cases_without_rounding():
    assert torch.equal(value("logit_adjustment", tau=0.0), CE)
    assert torch.equal(value("logit_adjustment", tau=1.0), value("balanced_softmax"))
    assert torch.equal(value("logit_margin", mean_margin=0.0), CE)
    assert torch.equal(value("logit_margin", mean_margin=0.0, tau=0.5), value("logit_adjustment", tau=0.5))
    assert torch.equal(value("lade"), value("balanced_softmax"))
    assert torch.equal(value("vs", gamma=0.0, tau=1.0), value("logit_adjustment", tau=1.0))
    assert torch.equal(value("ldam", max_margin=0.0, scale=1.0), CE)
    assert torch.equal(
        value("ldam", max_margin=0.0, scale=30.0), F.cross_entropy(30 * LOGITS, LABELS, reduction="none")
    )
    silent = value("gcl", noise_scale=0.0, margin=0.0, scale=30.0)
    assert torch.equal(silent, F.cross_entropy(30 * LOGITS, LABELS, reduction="none"))


def test_special_cases_up_to_rounding():
    torch.testing.assert_close(value("focal", gamma=0.0), CE)
    torch.testing.assert_close(value("label_smoothing", epsilon=0.0), CE)
    torch.testing.assert_close(
        value("balanced_softmax"), F.cross_entropy(LOGITS + COUNTS.log(), LABELS, reduction="none")
    )


def test_both_smoothing_conventions_against_torch():
    stock = F.cross_entropy(LOGITS, LABELS, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(value("label_smoothing", epsilon=0.2, convention="uniform"), stock)
    # The share that the others get: epsilon K / (K - 1) of torch's convention.
    stretched = F.cross_entropy(LOGITS, LABELS, reduction="none", label_smoothing=0.2 * 5 / 4)
    torch.testing.assert_close(value("label_smoothing", epsilon=0.2, convention="others"), stretched)


@pytest.mark.parametrize("convention", ["others", "uniform"])
def test_label_aware_smoothing_with_equal_smoothing_is_label_smoothing(convention):
    aware = value("label_aware_smoothing", epsilon_head=0.2, epsilon_tail=0.2, convention=convention)
    torch.testing.assert_close(aware, value("label_smoothing", epsilon=0.2, convention=convention))


def test_a_head_that_scales_itself_needs_scale_one_and_a_scaled_margin():
    torch.testing.assert_close(
        value("ldam", LOGITS, scale=30.0, max_margin=0.5), value("ldam", 30 * LOGITS, scale=1.0, max_margin=15.0)
    )


def test_post_hoc_adjustment_undoes_the_trained_prior():
    adjusted = post_hoc_logit_adjustment(LOGITS, COUNTS, tau=0.7)
    torch.testing.assert_close(value("logit_adjustment", adjusted, tau=0.7), CE)
    assert torch.equal(post_hoc_logit_adjustment(LOGITS, COUNTS, tau=0.0), LOGITS)
    prior = COUNTS / COUNTS.sum()
    assert torch.equal(adjusted.argmax(1), (LOGITS.exp() / prior**0.7).argmax(1))
    with pytest.raises(ValueError, match=r"class 1 \(0\)"):
        post_hoc_logit_adjustment(LOGITS, [4, 0, 1, 1, 1])


def test_class_weights_stay_out_of_the_value():
    for rule in ("effective_number", "inverse_frequency"):
        assert torch.equal(value("cross_entropy", weighting=rule), CE)


def test_mixing_is_linear_in_the_weight(case):
    name, args = case
    loss = build_loss(name, COUNTS, 5, **args)
    draw = loss.draw(LOGITS.shape, torch.Generator().manual_seed(0), "cpu")
    other = LABELS.flip(0)
    whole = Target(LABELS, other, torch.ones(9))
    if not loss.supports_mixed_targets:
        with pytest.raises(ValueError, match="no mixed form: turn mixup off"):
            loss(LOGITS, whole, draw)
        return
    assert torch.equal(loss(LOGITS, whole, draw), loss(LOGITS, PLAIN, draw))
    assert torch.equal(loss(LOGITS, Target(LABELS, other, torch.zeros(9)), draw), loss(LOGITS, Target(other), draw))
    weight = torch.linspace(0, 1, 9)
    both, swapped = Target(LABELS, other, weight), Target(other, LABELS, 1 - weight)
    torch.testing.assert_close(loss(LOGITS, both, draw), loss(LOGITS, swapped, draw))


def test_samples_do_not_see_each_other(case):
    name, args = case
    loss = build_loss(name, COUNTS, 5, **args)
    draw = loss.draw(LOGITS.shape, torch.Generator().manual_seed(0), "cpu")
    alone = [loss(LOGITS[[i]], PLAIN.select([i]), None if draw is None else draw[[i]]) for i in range(9)]
    torch.testing.assert_close(torch.cat(alone), loss(LOGITS, PLAIN, draw))


def test_noise_is_a_function_of_the_generator_clipped_and_absent_in_evaluation():
    loss = build_loss("gcl", COUNTS, 5)
    first, again, second = (loss.draw((4000, 5), torch.Generator().manual_seed(s), "cpu") for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert first.abs().max() <= 1
    assert first.std().item() == pytest.approx(1 / 3, abs=0.01)
    state = torch.get_rng_state()
    loss(LOGITS, PLAIN, first[:9])
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="pass draw="):
        loss(LOGITS, PLAIN)
    assert torch.equal(loss.eval()(LOGITS, PLAIN), F.cross_entropy(30 * LOGITS, LABELS, reduction="none"))


def test_gcl_without_clouds_draws_nothing():
    for loss in (build_loss("gcl", [4, 4, 4, 4, 4], 5), build_loss("gcl", COUNTS, 5, noise_scale=0.0)):
        assert not loss.draws_noise
        assert loss.draw((2, 5), torch.Generator(), "cpu") is None
        assert torch.equal(loss(LOGITS, PLAIN), F.cross_entropy(30 * LOGITS, LABELS, reduction="none"))


def test_only_gcl_draws_and_only_lade_couples_the_batch():
    args = {"ldam_drw": {"drw_epoch": 1}}
    losses = {name: build_loss(name, COUNTS, 5, **args.get(name, {})) for name in LOSSES}
    generator = torch.Generator().manual_seed(0)
    assert [n for n, loss in losses.items() if loss.draw((1, 5), generator, "cpu") is not None] == ["gcl"]
    assert [n for n, loss in losses.items() if loss.regulariser(LOGITS, PLAIN) is not None] == ["lade"]
    assert [n for n, loss in losses.items() if loss.couples_batch] == ["lade"]
    assert [n for n, loss in losses.items() if loss.requires_cosine_head] == ["ldam", "ldam_drw", "gcl"]
    assert {n: loss.logit_scale for n, loss in losses.items() if loss.logit_scale != 1} == dict.fromkeys(
        ("ldam", "ldam_drw", "gcl"), 30.0
    )


def test_buffers_move_copy_and_stay_out_of_checkpoints(case):
    name, args = case
    loss = build_loss(name, COUNTS, 5, weighting="inverse_frequency", **args)
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    draw = loss.draw(LOGITS.shape, torch.Generator().manual_seed(0), "cpu")
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(twin(LOGITS, PLAIN, draw), loss(LOGITS, PLAIN, draw))
    moved = loss.to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}
    assert moved(LOGITS.to("meta"), PLAIN.to("meta"), None if draw is None else draw.to("meta")).shape == (9,)


def test_label_smoothing_is_what_the_stock_trainer_computes():
    # The refusal of `label_smoothing_factor` names this loss, so the two must be one.
    stock = LabelSmoother(epsilon=0.1)({"logits": LOGITS}, LABELS)
    loss = build_loss("label_smoothing", None, 5, epsilon=0.1)
    torch.testing.assert_close(loss.reduce(loss(LOGITS, PLAIN), PLAIN), stock)
