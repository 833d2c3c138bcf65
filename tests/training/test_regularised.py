"""Regularised trainings: formulas against loops, what is saved, exact resume, and what is refused."""

import json

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForImageClassification

from ccsam_hf.training.averaging import AVERAGES
from ccsam_hf.training.spectral import SPECTRA

STAGE2 = {"stage": 2, "rule": "crt"}


def plain_gradients(model, batch):
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"]).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_gradient_norm_penalty_is_sam_with_a_share_of_the_plain_gradient(toy, tmp_path) -> None:
    """w − η ((1 − α) ∇L(w) + α ∇L(w + r ∇L/‖∇L‖)), and (α = 1) SAM itself."""
    radius, share, rate = 0.3, 0.7, 0.05
    model = toy.model("vit").double().train()
    batch = DataLoader(toy.images(), 32, collate_fn=toy.trainer(tmp_path, model="vit").data_collator)
    batch = {k: v.double() if v.is_floating_point() else v for k, v in next(iter(batch)).items()}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    clean = plain_gradients(model, batch)
    norm = torch.cat([g.flatten() for g in clean.values()]).norm()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(radius * clean[name] / norm)
    moved = plain_gradients(model, batch)
    trainer = toy.trainer(
        tmp_path, model="vit", perturbation="gradient_norm_penalty", radius=radius, flat_weight=share,
        max_perturbation_ratio=0, max_steps=1, per_device_train_batch_size=32, optim_args="momentum=0",
        lr_scheduler_type="constant",
    )  # fmt: skip
    trainer.train()
    for name, p in trainer.model.named_parameters():
        expected = before[name] - rate * ((1 - share) * clean[name] + share * moved[name])
        torch.testing.assert_close(p.detach().double(), expected, rtol=1e-4, atol=1e-6)


def test_presets_are_members_of_the_family(toy, tmp_path) -> None:
    def after(**options):
        trainer = toy.trainer(tmp_path, max_steps=2, **options)
        trainer.train()
        return toy.weights(trainer)

    pairs = [
        ({"perturbation": "gradient_norm_penalty"}, {"perturbation": "sam", "flat_weight": 0.8}),
        ({"perturbation": "random_model"}, {"perturbation": "sam", "direction": "random"}),
    ]
    for preset, spelled in pairs:
        first, second = after(**preset), after(**spelled)
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], after(perturbation="none")[name]) for name in first)


@pytest.mark.parametrize("stage", [{"perturbation": "none"}, STAGE2], ids=["stage 1", "stage 2"])
def test_averaged_weights_are_the_mean_of_the_epochs(toy, tmp_path, stage) -> None:
    """Epochs 1 and 2 of 0..2; in stage 1 BatchNorm statistics are the plain means over the training images."""
    options = {**stage, "num_train_epochs": 3, "save_strategy": "epoch"}
    plain = toy.trainer(tmp_path / "plain", **options)
    plain.train()
    snapshots = [
        AutoModelForImageClassification.from_pretrained(tmp_path / "plain" / f"checkpoint-{4 * epoch}").state_dict()
        for epoch in (2, 3)
    ]
    trainer = toy.trainer(tmp_path / "averaged", averaging_start=1, **options)
    trainer.train()
    for name, p in trainer.model.named_parameters():
        torch.testing.assert_close(p.detach(), (snapshots[0][name] + snapshots[1][name]) / 2)
    assert trainer.state.log_history[-1]["averaged_models"] == 2
    statistic = "timm_model.bn1.running_mean"
    unchanged = torch.equal(trainer.model.state_dict()[statistic], plain.model.state_dict()[statistic])
    assert unchanged == (stage is STAGE2)
    if stage is not STAGE2:
        conv = trainer.model.timm_model.conv1
        images = torch.stack([item["pixel_values"] for item in toy.images()])
        expected = conv(images).mean((0, 2, 3)).detach()
        torch.testing.assert_close(trainer.model.timm_model.bn1.running_mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", [{"perturbation": "ccsam"}, STAGE2], ids=["stage 1", "stage 2"])
@pytest.mark.parametrize("option", [{"averaging_start": 0.5}, {"spectral_norm": True}], ids=["averaged", "normalised"])
def test_resume_is_exact(toy, tmp_path, stage, option) -> None:
    options = {**stage, **option, "num_train_epochs": 3}
    whole = toy.trainer(tmp_path, **options, save_strategy="steps", save_steps=6)
    whole.train()
    resumed = toy.trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    expected = toy.weights(whole)
    assert all(torch.equal(expected[name], value) for name, value in toy.weights(resumed).items())


@pytest.mark.parametrize("stage", [{"perturbation": "none"}, STAGE2], ids=["stage 1", "stage 2"])
def test_normalised_models_load_without_the_package(toy, tmp_path, stage) -> None:
    trainer = toy.trainer(
        tmp_path, **stage, spectral_norm=True, save_strategy="epoch", num_train_epochs=4, learning_rate=0.01
    )
    trainer.train()
    model = trainer.model.eval()
    head = model.timm_model.fc
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear) and m is not head]
    for layer in [head] if stage is STAGE2 else layers:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item()
        assert largest == pytest.approx(1, abs=0.05)
    names = set(toy.weights(trainer))
    assert names == set(toy.model().state_dict())
    folder = tmp_path / "checkpoint-16"
    assert (folder / SPECTRA).is_file()
    assert not (folder / AVERAGES).exists()
    loaded = AutoModelForImageClassification.from_pretrained(folder).eval()
    images = torch.stack([item["pixel_values"] for item in toy.images()])
    torch.testing.assert_close(loaded(images).logits, model(images).logits)
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["architecture"] == "cifar_resnet20"


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_flat_retraining_is_sam_on_the_classifier(toy, tmp_path, share) -> None:
    """One step by hand: gradients at (W, b) and at (W, b) + ρ g/‖g‖, features fixed."""
    rate, radius = 0.05, 0.5
    trainer = toy.trainer(
        tmp_path, stage=2, model="vit", rule="crt_flat", sampling="instance", head_radius=radius,
        head_flat_weight=share, max_steps=1, per_device_train_batch_size=32, optim_args="momentum=0",
        lr_scheduler_type="constant",
    )  # fmt: skip
    batch = trainer.data_collator(trainer.train_dataset)
    model = toy.model("vit").eval()
    z = model.vit(batch["pixel_values"]).last_hidden_state[:, 0].detach().double()
    parameters = [p.detach().double().requires_grad_() for p in model.classifier.parameters()]

    def gradients(values):
        loss = torch.nn.functional.cross_entropy(torch.nn.functional.linear(z, *values), batch["labels"])
        return torch.autograd.grad(loss, values)

    clean = gradients(parameters)
    norm = torch.cat([g.flatten() for g in clean]).norm()
    moved = gradients([p + radius * g / norm for p, g in zip(parameters, clean, strict=True)])
    trainer.train()
    for old, g, at, new in zip(parameters, clean, moved, trainer.model.classifier.parameters(), strict=True):
        expected = old - rate * ((1 - share) * g + share * at)
        torch.testing.assert_close(new.detach().double(), expected.detach(), rtol=1e-4, atol=1e-6)


REFUSED = {
    "both": ({"averaging_start": 1, "spectral_norm": True}, "drop spectral_norm"),
    "beyond the run": ({"averaging_start": 2}, r"must lie in 0..2 epochs"),
    "steps": ({"averaging_start": 1, "max_steps": 3}, "counts epochs"),
    "all layers": ({"perturbation": "sam", "spectral_norm": True}, "perturbed_layers='classifier'"),
    "closed rule": ({"stage": 2, "rule": "tau_norm", "spectral_norm": True}, "no effect with rule='tau_norm'"),
    "scaled": ({"stage": 2, "rule": "lws", "spectral_norm": True}, "'lws' classifier has a scale"),
    "idle": ({"stage": 2, "rule": "crt", "head_radius": 0.1}, "head_radius=0.1: no effect with rule='crt'"),
    "share": ({"stage": 2, "rule": "crt_flat", "head_flat_weight": 2.0}, "head_flat_weight must lie in 0..1"),
    "direction": ({"stage": 2, "rule": "crt_flat", "head_direction": "up"}, "choose gradient or random"),
    "radius": ({"perturbation": "random_model", "adaptive": True}, "no adaptive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(toy, tmp_path, case) -> None:
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        toy.trainer(tmp_path, **options).train()


def test_a_checkpoint_without_averages_is_refused(toy, tmp_path) -> None:
    toy.trainer(tmp_path, save_strategy="epoch").train()
    for option, file in (({"averaging_start": 1}, AVERAGES), ({"spectral_norm": True}, SPECTRA)):
        with pytest.raises(ValueError, match=f"checkpoint-4 has no {file}"):
            toy.trainer(tmp_path, **option).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
