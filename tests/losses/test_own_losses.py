"""A user's own losses: under a name, as a class, as an object, with and without the features."""

import doctest

import pytest
import torch
from torch.nn import functional as F

import ccsam_hf.losses.base
import ccsam_hf.losses.prior
import ccsam_hf.losses.registry
from ccsam_hf.losses import (
    LOSSES,
    CrossEntropy,
    LogitAdjustment,
    LongTailedLoss,
    Target,
    build_loss,
    list_losses,
    logit_gradient,
    register_loss,
)

COUNTS = [6, 3, 1]
G = torch.Generator().manual_seed(5)
LOGITS = torch.randn(7, 3, generator=G, dtype=torch.float64)
FEATURES = torch.randn(7, 4, generator=G, dtype=torch.float64)
LABELS = torch.tensor([0, 0, 1, 2, 1, 0, 2])
TARGET = Target(LABELS)


@pytest.fixture(autouse=True)
def registered_names():
    """The registry as it was, after every test."""
    before = dict(LOSSES)
    yield
    LOSSES._parts.clear()
    LOSSES._parts.update(before)


class SupervisedContrastive(CrossEntropy):
    """Cross entropy plus Khosla et al. 2020, Eq. 2, on the features of the batch."""

    needs_features = True
    couples_batch = True

    def __init__(self, num_classes, class_counts=None, *, temperature=0.1, **common):
        super().__init__(num_classes, class_counts, **common)
        self.temperature = temperature

    def per_label(self, logits, labels, draw=None, features=None):
        return super().per_label(logits, labels)

    def regulariser(self, logits, target, features=None):
        z = F.normalize(features, dim=1)
        itself = torch.eye(len(z), dtype=torch.bool)
        log_p = (z @ z.T / self.temperature).masked_fill(itself, -torch.inf).log_softmax(1)
        positive = (target.labels[:, None] == target.labels) & ~itself
        return (-log_p.masked_fill(~positive, 0.0).sum(1) / positive.sum(1)).mean()


class FeatureNorm(LongTailedLoss):
    """A value for each sample that depends on its features and, without a softmax, on its logits."""

    needs_class_counts = False
    needs_features = True

    def per_label(self, logits, labels, draw=None, features=None):
        wanted = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1) + features.square().sum(1)


def slow_contrast(features, labels, temperature):
    z = [f / f.norm() for f in features]
    total = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        same = [j for j in others if labels[j] == labels[i]]
        denominator = sum(torch.exp(z[i] @ z[j] / temperature) for j in others)
        total += sum(-torch.log(torch.exp(z[i] @ z[j] / temperature) / denominator) for j in same) / len(same)
    return total / len(z)


def test_a_contrastive_loss_of_ones_own_sees_the_features_and_trains_them():
    register_loss("supcon", reference="Khosla et al., NeurIPS 2020")(SupervisedContrastive)
    loss = build_loss("supcon", COUNTS, 3, temperature=0.2, weighting="inverse_frequency")
    assert list_losses()[-1] == "supcon"
    assert LOSSES["supcon"].reference == "Khosla et al., NeurIPS 2020"
    features = FEATURES.clone().requires_grad_(True)
    per_sample = loss(LOGITS, TARGET, features=features)
    torch.testing.assert_close(per_sample, F.cross_entropy(LOGITS, LABELS, reduction="none"))
    contrast = loss.regulariser(LOGITS, TARGET, features=features)
    torch.testing.assert_close(contrast, slow_contrast(FEATURES, LABELS, 0.2))
    (gradient,) = torch.autograd.grad(contrast, features)
    assert (gradient.norm(dim=1) > 0).all()


def test_features_reach_every_sample_and_are_held_constant_in_the_logit_gradient():
    loss = FeatureNorm(3)
    features = FEATURES.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(LOGITS, TARGET, features=features).sum(), features)
    torch.testing.assert_close(gradient, 2 * FEATURES)
    # Without a softmax the rows of the gradient do not sum to zero, and must not be made to.
    delta = logit_gradient(loss, LOGITS, TARGET, features=features)
    torch.testing.assert_close(delta, LOGITS.sigmoid() - F.one_hot(LABELS, 3))
    assert not delta.requires_grad
    mixed = Target(LABELS, LABELS.flip(0), torch.full((7,), 0.25, dtype=torch.float64))
    expected = 0.25 * loss(LOGITS, TARGET, features=FEATURES) + 0.75 * loss(
        LOGITS, Target(LABELS.flip(0)), features=FEATURES
    )
    torch.testing.assert_close(loss(LOGITS, mixed, features=FEATURES), expected)


def test_missing_features_are_refused():
    with pytest.raises(ValueError, match=r"FeatureNorm needs the classifier's inputs .*pass features="):
        FeatureNorm(3)(LOGITS, TARGET)
    # A caller may always pass them: losses that have no use for them change no bit.
    loss = build_loss("balanced_softmax", COUNTS, 3)
    assert torch.equal(loss(LOGITS, TARGET, features=FEATURES), loss(LOGITS, TARGET))


def test_every_loss_of_the_package_sums_its_gradient_to_zero():
    assert all(entry.loss.gradient_sums_to_zero for entry in LOSSES.values())
    assert not LongTailedLoss.gradient_sums_to_zero


def test_names_are_taken_once():
    assert register_loss("mine", preset={"tau": 0.5})(LogitAdjustment) is LogitAdjustment
    assert build_loss("mine", COUNTS, 3).tau == 0.5
    register_loss("mine", preset={"tau": 0.5})(LogitAdjustment)  # the same again, as a reloaded notebook cell does
    with pytest.raises(ValueError, match="The loss 'mine' is registered already"):
        register_loss("mine")(CrossEntropy)
    with pytest.raises(ValueError, match="The loss 'focal' is registered already"):
        register_loss("focal")(CrossEntropy)


def test_unknown_names_list_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"Unknown loss 'balanced_sofmax': did you mean 'balanced_softmax'\? Choose"):
        build_loss("balanced_sofmax", COUNTS, 3)


def test_what_is_no_loss_is_refused():
    class Stubborn(LongTailedLoss):
        def __init__(self, num_classes, class_counts, temperature):
            super().__init__(num_classes, class_counts)

    with pytest.raises(ValueError, match=r"derived from .*LongTailedLoss, not <class '.*CrossEntropyLoss"):
        register_loss("torchs")(torch.nn.CrossEntropyLoss)
    with pytest.raises(ValueError, match=r"Stubborn cannot be built from .*pass them on to super"):
        register_loss("stubborn")(Stubborn)
    with pytest.raises(ValueError, match="is a class derived from"):
        build_loss(torch.nn.CrossEntropyLoss(), COUNTS, 3)
    assert not {"torchs", "stubborn"} & set(LOSSES)


def test_classes_and_objects_serve_instead_of_names():
    built = build_loss(SupervisedContrastive, COUNTS, 3, temperature=0.5)
    assert (type(built), built.temperature, built.num_classes) == (SupervisedContrastive, 0.5, 3)
    with pytest.raises(ValueError, match="loss 'SupervisedContrastive' has no argument tau; it accepts beta"):
        build_loss(SupervisedContrastive, COUNTS, 3, tau=1.0)
    own = LogitAdjustment(3, COUNTS, tau=2.0)
    assert build_loss(own, COUNTS, 3) is own
    assert build_loss(FeatureNorm(3), COUNTS, 3).class_counts is None
    with pytest.raises(ValueError, match=r"loss_args tau have no effect .* set them in LogitAdjustment\(\.\.\.\)"):
        build_loss(own, COUNTS, 3, tau=1.0)
    with pytest.raises(ValueError, match="LogitAdjustment has num_classes=3, the data 4 classes"):
        build_loss(own, [*COUNTS, 1], 4)
    with pytest.raises(ValueError, match="LogitAdjustment has other class_counts than the training set"):
        build_loss(own, [1, 3, 6], 3)


@pytest.mark.parametrize("module", [ccsam_hf.losses.base, ccsam_hf.losses.prior, ccsam_hf.losses.registry])
def test_examples_run(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
