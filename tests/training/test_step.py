"""One optimizer step of the trainer against a loop that moves the classifier for every class."""

import pytest
import torch
import torch.nn.functional as F

ONE_STEP = {
    "max_steps": 1,
    "per_device_train_batch_size": 32,
    "optim_args": "momentum=0",
    "lr_scheduler_type": "constant",
}


def reference_gradients(model, batch, labels, counts, scale, flat_weight, class_reduction, head_name):
    """Gradients of (1 − a) L + a L', where each class's samples see their own moved copy of the head."""
    model.train()
    head = dict(model.named_modules())[head_name]
    captured = []
    handle = head.register_forward_pre_hook(lambda module, args: captured.append(args[0]))
    logits = model(**batch).logits
    handle.remove()
    z, (w, b) = captured[0], (head.weight, head.bias)
    norm, number = torch.sqrt((w**2).sum() + (b**2).sum()).detach(), w.numel() + b.numel()
    clean = F.cross_entropy(logits, labels, reduction="none")
    perturbed = torch.zeros_like(clean)
    for c in labels.unique():
        members = labels == c
        loss = F.cross_entropy(F.linear(z[members], w, b), labels[members])
        g_w, g_b = torch.autograd.grad(loss, [w, b], retain_graph=True)
        g = torch.sqrt((g_w**2).sum() + (g_b**2).sum())
        rho = (norm / (2 * g)) ** 0.5 * number**-0.25 * max(counts[c] - 1, 1) ** -0.25
        length = min(scale * number**0.5 * rho, 0.1 * norm)
        moved = F.linear(z[members], w + length * g_w / g, b + length * g_b / g)
        perturbed[members] = F.cross_entropy(moved, labels[members], reduction="none")
    mixed = (1 - flat_weight) * clean + flat_weight * perturbed
    if class_reduction == "class":
        loss = torch.stack([mixed[labels == c].mean() for c in labels.unique()]).mean()
    else:
        loss = mixed.mean()
    return dict(
        zip(
            [n for n, _ in model.named_parameters()],
            torch.autograd.grad(loss, list(model.parameters()), allow_unused=True),
            strict=True,
        )
    )


@pytest.mark.parametrize(
    ("kind", "head", "flat_weight", "class_reduction"),
    [
        ("cnn", "timm_model.fc", 1.0, "sample"),
        ("cnn", "timm_model.fc", 0.3, "class"),
        ("vit", "classifier", 0.5, "sample"),
        ("resnet", "classifier.1", 1.0, "class"),
        ("bert", "classifier", 0.7, "sample"),
    ],
)
def test_a_step_is_the_loop_over_classes(toy, tmp_path, kind, head, flat_weight, class_reduction) -> None:
    trainer = toy.trainer(
        tmp_path, model=kind, radius_scale=0.05, flat_weight=flat_weight, class_reduction=class_reduction, **ONE_STEP
    )
    before = toy.weights(trainer)
    batch = trainer.data_collator(trainer.train_dataset)
    labels = batch.pop("labels")
    expected = reference_gradients(toy.model(kind), batch, labels, toy.counts, 0.05, flat_weight, class_reduction, head)
    trainer.train()
    after = dict(trainer.model.named_parameters())
    moved = 0
    for name, gradient in expected.items():
        if gradient is not None:
            step = (before[name] - after[name].detach()) / trainer.args.learning_rate
            torch.testing.assert_close(step, gradient, rtol=1e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
            moved += bool(gradient.abs().max() > 1e-4)
    assert moved > len(expected) // 2


def test_accumulation_over_two_equals_one_batch_of_two(toy, tmp_path) -> None:
    """Of plain training, without batch statistics: the halves of a batch have class gradients of their own."""
    options = {"model": "vit", "flat_weight": 0.0, "max_steps": 2}
    whole = toy.trainer(tmp_path, per_device_train_batch_size=16, **options)
    halves = toy.trainer(tmp_path, per_device_train_batch_size=8, gradient_accumulation_steps=2, **options)
    whole.train()
    halves.train()
    for name, value in toy.weights(whole).items():
        torch.testing.assert_close(toy.weights(halves)[name], value, rtol=1e-5, atol=1e-6)


def test_evaluation_reports_the_unperturbed_loss(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, relative_radius=0.1)
    trainer.train()
    batch = trainer.data_collator(trainer.eval_dataset)
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model(**batch).loss.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_bfloat16_stays_as_close_to_float32_as_plain_training_does(toy, tmp_path) -> None:
    def distance(**options):
        """‖difference of the two precisions‖ / ‖way travelled‖ over all weights."""
        runs = []
        for bf16 in (False, True):
            trainer = toy.trainer(tmp_path, model="vit", max_steps=3, bf16=bf16, **options)
            start = torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()
            trainer.train()
            runs.append(torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach() - start)
        full, half = runs
        return ((half - full).norm() / full.norm()).item()

    plain, perturbed = distance(perturbation="none"), distance(relative_radius=0.05)
    assert plain > 0
    assert perturbed <= 1.5 * plain


def test_compiled_equals_eager(toy, tmp_path) -> None:
    options = {"model": "vit", "relative_radius": 0.05, "max_steps": 3}
    eager = toy.trainer(tmp_path, **options)
    compiled = toy.trainer(tmp_path, torch_compile=True, torch_compile_backend="aot_eager", **options)
    eager.train()
    compiled.train()
    for name, value in toy.weights(eager).items():
        torch.testing.assert_close(toy.weights(compiled)[name], value, rtol=1e-5, atol=1e-6)
    # A second run must find its own hook, although the code of the first one is cached.
    eager.train()
    compiled.train()
    for name, value in toy.weights(eager).items():
        torch.testing.assert_close(toy.weights(compiled)[name], value, rtol=1e-5, atol=1e-6)


def test_logged_figures(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, relative_radius=0.02, max_steps=1, per_device_train_batch_size=32, logging_steps=1)
    trainer.train()
    log = trainer.state.log_history[0]
    # The first step knows no running mean yet, so that every class moves by the relative radius itself.
    for group in ("many", "medium", "few"):
        assert log[f"radius_{group}"] == pytest.approx(0.02, rel=1e-5)
    assert log["radius_capped"] == 0
    assert log["loss"] == pytest.approx(log["loss_perturbed"])
    assert log["loss_perturbed"] > log["loss_clean"]


def test_logged_shift_is_how_far_the_true_logits_fall(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, model="cnn", relative_radius=0.02, logging_steps=1, **ONE_STEP)
    batch = trainer.data_collator(trainer.train_dataset)
    labels, model = batch.pop("labels"), toy.model("cnn").train()
    captured = []
    model.timm_model.fc.register_forward_pre_hook(lambda module, args: captured.append(args[0]))
    logits = model(**batch).logits
    z, w, b = captured[0].detach(), model.timm_model.fc.weight, model.timm_model.fc.bias
    norm = torch.sqrt((w**2).sum() + (b**2).sum())
    falls = []
    for i, c in enumerate(labels):
        own = labels == c
        g_w, g_b = torch.autograd.grad(F.cross_entropy(F.linear(z[own], w, b), labels[own]), [w, b])
        length = 0.02 * norm / torch.sqrt((g_w**2).sum() + (g_b**2).sum())
        falls.append((logits[i, c] - z[i] @ (w + length * g_w)[c] - (b + length * g_b)[c]).item())
    trainer.train()
    assert trainer.state.log_history[0]["logit_shift"] == pytest.approx(sum(falls) / len(falls), rel=1e-4)
    assert min(falls) > 0


def test_flat_weight_is_the_share_of_the_perturbed_loss(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, relative_radius=0.1, flat_weight=0.25, logging_steps=1)
    trainer.train()
    for log in trainer.state.log_history[:-1]:
        assert log["loss"] == pytest.approx(0.75 * log["loss_clean"] + 0.25 * log["loss_perturbed"], rel=1e-4)
