"""Stage 2: adversarial features by hand, the progressive weight, and a backbone that does not move."""

import pytest
import torch
import torch.nn.functional as F

from ccsam_hf.models import create_model
from ccsam_hf.training import adversarial_features, progressive_weight


def test_adversarial_features_by_hand() -> None:
    z = torch.tensor([[1.0, 2.0], [0.0, 0.0], [5.0, 6.0]])
    gradient = torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.0, 0.0]])
    expected = torch.tensor([[1.3, 2.4], [0.0, -0.5], [5.0, 6.0]])
    torch.testing.assert_close(adversarial_features(z, gradient, 0.5), expected)


def test_a_tiny_gradient_still_gives_the_full_length() -> None:
    moved = adversarial_features(torch.zeros(1, 2), torch.tensor([[3e-30, 4e-30]]), 1.0)
    torch.testing.assert_close(moved, torch.tensor([[0.6, 0.8]]))


def test_progressive_weight_at_both_ends() -> None:
    assert [progressive_weight(t, 4) for t in range(4)] == [0, 0.25, 0.5, 0.75]
    assert [progressive_weight(t, 4, from_one=True) for t in range(4)] == [0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("schedule", ["progressive", "progressive_from_one"])
def test_the_logged_losses_obey_equation_14(toy, tmp_path, schedule) -> None:
    trainer = toy.trainer(
        tmp_path,
        stage=2,
        num_train_epochs=4,
        logging_strategy="epoch",
        logging_steps=500,
        adversarial_schedule=schedule,
    )
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss_adversarial" in log]
    assert len(logs) == 4
    for t, log in enumerate(logs):
        weight = (t + (schedule == "progressive_from_one")) / 4
        expected = (1 - weight) * log["loss_clean"] + weight * log["loss_adversarial"]
        assert log["loss"] == pytest.approx(expected, rel=1e-4)
        assert log["loss_adversarial"] > log["loss_clean"]


def manual_step(model, images, labels, scale, weight, rate):
    """One step of SGD on the head, from features of the model in evaluation mode."""
    model.eval()
    head = model.timm_model.fc
    with torch.no_grad():
        z = model.timm_model.forward_head(model.timm_model.forward_features(images), pre_logits=True)
    leaf = z.clone().requires_grad_()
    per_sample = F.cross_entropy(F.linear(leaf, head.weight, head.bias), labels, reduction="none")
    (g,) = torch.autograd.grad(per_sample.sum(), leaf)
    moved = z + scale * g / g.norm(dim=1, keepdim=True)
    loss = (1 - weight) * F.cross_entropy(head(z), labels) + weight * F.cross_entropy(head(moved), labels)
    grads = torch.autograd.grad(loss, [head.weight, head.bias])
    return [p.detach() - rate * g for p, g in zip([head.weight, head.bias], grads, strict=True)]


def test_a_step_by_hand(toy, tmp_path) -> None:
    trainer = toy.trainer(
        tmp_path, stage=2, max_steps=1, per_device_train_batch_size=32, optim_args="momentum=0",
        lr_scheduler_type="constant", adversarial_scale=2.0, adversarial_schedule="progressive_from_one",
    )  # fmt: skip
    trainer.resolve()
    order = [int(draw) for draw in trainer._make_sampler(trainer.train_dataset)]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in order])
    expected = manual_step(
        toy.model("cnn"), batch["pixel_values"], batch["labels"], 2.0, 1.0, trainer.args.learning_rate
    )
    trainer.train()
    head = trainer.model.timm_model.fc
    torch.testing.assert_close(head.weight.detach(), expected[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(head.bias.detach(), expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cache_features", [False, True])
@pytest.mark.parametrize("rule", ["adversarial", "crt"])
def test_only_the_classifier_moves(toy, tmp_path, rule, cache_features) -> None:
    trainer = toy.trainer(tmp_path, stage=2, rule=rule, cache_features=cache_features)
    before = toy.weights(trainer)
    flags = {name: p.requires_grad for name, p in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, value in toy.weights(trainer).items() if not torch.equal(value, before[name])}
    assert changed == {"timm_model.fc.weight", "timm_model.fc.bias"}
    assert {name: p.requires_grad for name, p in trainer.model.named_parameters()} == flags


def test_dropout_is_frozen_too(toy, tmp_path) -> None:
    results = []
    for drop in (0.0, 0.9):
        model = toy.model("cnn")
        model.timm_model.drop_rate = drop
        trainer = toy.trainer(tmp_path, stage=2, model=model)
        trainer.train()
        results.append(toy.weights(trainer))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


@pytest.mark.parametrize("rule", ["adversarial", "crt"])
def test_the_cache_gives_the_same_classifier(toy, tmp_path, rule) -> None:
    plain = toy.trainer(tmp_path, stage=2, rule=rule, num_train_epochs=3)
    cached = toy.trainer(tmp_path, stage=2, rule=rule, num_train_epochs=3, cache_features=True)
    plain.train()
    cached.train()
    for name, value in toy.weights(plain).items():
        torch.testing.assert_close(toy.weights(cached)[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"rule": "crt_flat"}, {"cache_features": True}], ids=["adversarial", "flat", "cached"]
)
@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_compiled_equals_eager(toy, tmp_path, kind, options) -> None:
    options = {"stage": 2, "model": kind, "max_steps": 3, "adversarial_schedule": "progressive_from_one", **options}
    if "rule" in options:
        del options["adversarial_schedule"]
    eager = toy.trainer(tmp_path, **options)
    compiled = toy.trainer(tmp_path, torch_compile=True, torch_compile_backend="aot_eager", **options)
    before = toy.weights(eager)
    # A second run must find its own hook, although the code of the first one is cached.
    for _ in range(2):
        eager.train()
        compiled.train()
        changed = set()
        for name, value in toy.weights(eager).items():
            torch.testing.assert_close(toy.weights(compiled)[name], value, rtol=1e-5, atol=1e-6)
            changed |= {name} if not torch.equal(value, before[name]) else set()
        assert len(changed) == 2, "the classifier's weight and bias"


def test_zero_scale_is_classifier_retraining(toy, tmp_path) -> None:
    adversarial = toy.trainer(tmp_path, stage=2, adversarial_scale=0.0, num_train_epochs=3)
    crt = toy.trainer(tmp_path, stage=2, rule="crt", num_train_epochs=3)
    adversarial.train()
    crt.train()
    for name, value in toy.weights(crt).items():
        torch.testing.assert_close(toy.weights(adversarial)[name], value, rtol=1e-5, atol=1e-6)


def test_a_fresh_classifier_depends_on_the_seed_only(toy, tmp_path) -> None:
    heads = []
    for fill in (0.0, 1.0):
        model = toy.model("cnn")
        torch.nn.init.constant_(model.timm_model.fc.weight, fill)
        trainer = toy.trainer(tmp_path, stage=2, rule="crt", model=model, reinitialize_classifier=True)
        trainer.train()
        heads.append(trainer.model.timm_model.fc.weight.detach().clone())
    assert torch.equal(*heads)


def test_class_balanced_batches(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, stage=2, num_train_epochs=200)
    trainer.resolve()
    sampler = trainer._make_sampler(trainer.train_dataset)
    labels = torch.tensor(toy.labels)
    drawn = torch.zeros(toy.classes)
    for epoch in range(200):
        sampler.set_epoch(epoch)
        drawn += torch.bincount(labels[[int(d) for d in sampler]], minlength=toy.classes)
    share = drawn / drawn.sum()
    # 6,400 draws: the standard deviation of a share is 0.0054.
    torch.testing.assert_close(share, torch.full_like(share, 1 / toy.classes), rtol=0, atol=0.025)


def test_other_architectures(toy, tmp_path) -> None:
    model = create_model("vit_tiny_patch16_224", toy.classes, input_size=32)
    images = [
        {**item, "pixel_values": torch.nn.functional.interpolate(item["pixel_values"][None], 32)[0]}
        for item in toy.images()
    ]
    trainer = toy.trainer(tmp_path, stage=2, model=model, train_dataset=images, max_steps=2)
    before = toy.weights(trainer)
    trainer.train()
    changed = {name for name, value in toy.weights(trainer).items() if not torch.equal(value, before[name])}
    assert changed == {"timm_model.head.weight", "timm_model.head.bias"}


@pytest.mark.parametrize("stage", [1, 2])
def test_a_trainer_s_own_card_names_its_stage(toy, tmp_path, stage) -> None:
    trainer = toy.trainer(tmp_path, stage=stage, max_steps=1)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"Weights after stage {stage}" in card
    assert f"Weights after stage {3 - stage}" not in card
