"""The formulas of the stage-2 rules against slow references."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import TrainerCallback

from ccsam_hf.models import HEADS, replace_classifier
from ccsam_hf.training.adversarial import class_adversarial_features, rarity_weights
from ccsam_hf.training.rules import class_means, generalized_weights, nearest_mean_classifier, tau_normalized

ONE_STEP = {
    "max_steps": 1, "per_device_train_batch_size": 32, "optim_args": "momentum=0", "lr_scheduler_type": "constant",
}  # fmt: skip


class StopAfterOne(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_training_stop = True


def draws(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_rarity_weights_by_hand() -> None:
    expected = [math.log(1.01) / 2, math.log(2.01) / 2, math.log(100.01) / 2]
    assert rarity_weights(torch.tensor([100, 50, 1])).tolist() == pytest.approx(expected, rel=1e-12)


def test_class_adversarial_features_are_the_loop_over_classes() -> None:
    z, gradient, lengths = draws(6, 3), draws(6, 3) * 1e-3, torch.tensor([0.5, 2.0, 7.0, 1.0], dtype=torch.float64)
    labels = torch.tensor([0, 2, 0, 1, 0, 2])
    gradient[3] = 0  # the only sample of class 1 has no gradient
    moved = class_adversarial_features(z, gradient, labels, lengths)
    for c in range(3):
        rows = labels == c
        norm = gradient[rows].norm()
        expected = z[rows] + (lengths[c] * gradient[rows] / norm if norm > 0 else 0)
        torch.testing.assert_close(moved[rows], expected)
    tiny = class_adversarial_features(z.float(), (gradient * 1e-30).float(), labels, lengths.float())
    torch.testing.assert_close(tiny, moved.float())


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_tau_normalized(tau) -> None:
    weight = draws(5, 7)
    weight[2] = 0
    found = tau_normalized(weight, tau)
    for c in range(5):
        length = math.sqrt(sum(float(x) ** 2 for x in weight[c]))
        torch.testing.assert_close(found[c], weight[c] / length**tau if length else weight[c])
    if tau == 0:
        assert torch.equal(found, weight)


def test_class_means() -> None:
    z, labels = draws(9, 4), torch.tensor([0, 1, 1, 3, 0, 3, 3, 3, 1])
    means = class_means(z.float(), labels, 4)
    for c in (0, 1, 3):
        torch.testing.assert_close(means[c], z.float().double()[labels == c].mean(0))
    assert means[2].isnan().all()


def test_nearest_mean_classifier_agrees_with_the_distances() -> None:
    z, means = draws(200, 4), 2 * draws(6, 4)
    distances = torch.tensor([[math.dist(a, b) for b in means.tolist()] for a in z.tolist()], dtype=torch.float64)
    weight, bias = nearest_mean_classifier(means, "euclidean")
    logits = F.linear(z, weight, bias)
    assert torch.equal(logits.argmax(1), distances.argmin(1))
    torch.testing.assert_close(logits.softmax(1), (-distances.square() / 2).softmax(1))
    cosines = torch.stack([torch.stack([F.cosine_similarity(a, b, dim=0) for b in means]) for a in z])
    weight, bias = nearest_mean_classifier(means, "cosine")
    torch.testing.assert_close(F.linear(z, weight, bias), cosines * z.norm(dim=1, keepdim=True))


def test_generalized_weights() -> None:
    counts = torch.tensor([100, 10, 1])
    assert torch.equal(generalized_weights(counts, 0.0), torch.ones(3).double())
    raw = [100**-1.2, 10**-1.2, 1.0]
    assert generalized_weights(counts, 1.2).tolist() == pytest.approx([3 * w / sum(raw) for w in raw], rel=1e-12)


def batch_of(trainer):
    """The images and labels of the first step, and the features of the model in evaluation mode."""
    trainer.resolve()
    order = [int(draw) for draw in trainer._make_sampler(trainer.train_dataset)]
    trainer._release()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in order])
    model = trainer.model.eval().timm_model
    with torch.no_grad():
        z = model.forward_head(model.forward_features(batch["pixel_values"]), pre_logits=True)
    return z, batch["labels"]


def assert_one_step(trainer, before, gradients) -> None:
    trainer.train()
    for old, gradient, new in zip(before, gradients, trainer.model.timm_model.fc.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old - trainer.args.learning_rate * gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cap", "epochs"), [(0.3, 1), (0.3, 5), (1.0, 1)])
def test_a_released_step_by_hand(toy, tmp_path, cap, epochs) -> None:
    options = {**ONE_STEP, "adversarial_scale": 2.0, "adversarial_cap": cap, "max_steps": epochs}
    trainer = toy.trainer(tmp_path, stage=2, rule="adversarial_released", learning_rate=1e-4, **options)
    z, labels = batch_of(trainer)
    head = trainer.model.timm_model.fc
    weights = [math.log(max(toy.counts) / n + 0.01) / 2 for n in toy.counts]
    leaf = z.clone().requires_grad_()
    losses = F.cross_entropy(head(leaf), labels, reduction="none")
    total = 0.0
    for c in labels.unique().tolist():
        (g,) = torch.autograd.grad(losses[labels == c].mean(), leaf, retain_graph=True)
        moved = F.cross_entropy(head(z + 2.0 * weights[c] * g / g.norm()), labels, reduction="none")
        total = total + weights[c] * moved[labels == c].sum()
    a = min(1 / epochs, cap)
    loss = (1 - a) * F.cross_entropy(head(z), labels) + a * total / len(labels)
    gradients = torch.autograd.grad(loss, [head.weight, head.bias])
    before = [p.detach().clone() for p in (head.weight, head.bias)]
    trainer.add_callback(StopAfterOne())  # of as many epochs, of one step each
    assert_one_step(trainer, before, gradients)


def test_a_step_of_disalign_by_hand(toy, tmp_path) -> None:
    trainer = toy.trainer(
        tmp_path, stage=2, rule="disalign", reweighting_exponent=0.7, sampling="class", learning_rate=1e-3, **ONE_STEP
    )
    z, labels = batch_of(trainer)
    head = HEADS["disalign"].from_linear(toy.model("cnn").timm_model.fc)
    raw = torch.tensor(toy.counts).double() ** -0.7
    weights = (len(raw) * raw / raw.sum()).float()
    loss = (weights[labels] * F.cross_entropy(head(z), labels, reduction="none")).mean()
    loss.backward()
    trainer.train()
    found = dict(trainer.model.timm_model.fc.named_parameters())
    for name, old in head.named_parameters():
        moved = old if name in ("weight", "bias") else old - 1e-3 * old.grad
        torch.testing.assert_close(found[name].detach(), moved.detach(), rtol=1e-4, atol=1e-6)


def test_adversarial_features_of_a_cosine_classifier(toy, tmp_path) -> None:
    """The gradient with respect to the features goes through whatever the classifier computes."""
    model = toy.model("cnn")
    replace_classifier(model, "cosine", scale=8.0)
    trainer = toy.trainer(
        tmp_path, stage=2, model=model, adversarial_scale=0.5, adversarial_schedule="progressive_from_one", **ONE_STEP
    )
    z, labels = batch_of(trainer)
    head = trainer.model.timm_model.fc
    leaf = z.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(head(leaf), labels, reduction="sum"), leaf)
    loss = F.cross_entropy(head(z + 0.5 * g / g.norm(dim=1, keepdim=True)), labels)
    before = head.weight.detach().clone()
    assert_one_step(trainer, [before], torch.autograd.grad(loss, [head.weight]))
    assert not torch.equal(head.weight, before)


def test_nearest_class_mean_of_the_trainer(toy, tmp_path) -> None:
    """The images are those of evaluation: an augmentation that would move every draw has no part in it."""
    trainer = toy.trainer(tmp_path, stage=2, rule="ncm")
    batch = trainer.data_collator(trainer.train_dataset)
    model = trainer.model.eval().timm_model
    with torch.no_grad():
        z = model.forward_head(model.forward_features(batch["pixel_values"]), pre_logits=True)
    trainer.train()
    means = torch.stack([z[batch["labels"] == c].mean(0) for c in range(toy.classes)])
    torch.testing.assert_close(model.fc.weight.detach(), means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.fc.bias.detach(), -means.square().sum(1) / 2, rtol=1e-4, atol=1e-5)


def test_tau_normalization_of_the_trainer(toy, tmp_path) -> None:
    old = toy.model("cnn").timm_model.fc
    nn.init.constant_(old.bias, 0.5)
    for keep_bias, tau in [(True, 0.0), (False, 0.0), (True, 0.7)]:
        model = toy.model("cnn")
        nn.init.constant_(model.timm_model.fc.bias, 0.5)
        trainer = toy.trainer(tmp_path, stage=2, rule="tau_norm", tau=tau, keep_bias=keep_bias, model=model)
        trainer.train()
        torch.testing.assert_close(model.timm_model.fc.weight, tau_normalized(old.weight, tau))
        assert model.timm_model.fc.bias.tolist() == [0.5 * keep_bias] * toy.classes
        if tau == 0:
            assert torch.equal(model.timm_model.fc.weight, old.weight)
