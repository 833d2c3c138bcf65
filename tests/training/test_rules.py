"""Every rule of stage 2 trains, moves exactly the parameters it should, resumes, saves, loads and folds."""

import json

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification, TrainerCallback

from ccsam_hf.models import HEADS, find_classifier, load_with_head, replace_classifier
from ccsam_hf.training import ClassifierTrainer, ClassifierTrainingArguments
from ccsam_hf.training.rules import RULES

LINEAR = {"weight", "bias"}
SMOOTHED = {"rule": "mislas", "loss": "label_aware_smoothing"}
# Options, the classifier before and after, what of it moves, and whether the backbone's statistics move.
CASES = {
    "adversarial": ({}, "linear", "linear", LINEAR),
    "adversarial_released": ({}, "linear", "linear", LINEAR),
    "adversarial_released, shifted": (
        {"rule": "adversarial_released", "shift_batch_norm": True}, "linear", "linear", LINEAR,
    ),
    "crt": ({}, "linear", "linear", LINEAR),
    "crt_flat": ({}, "linear", "linear", LINEAR),
    "crt_flat, random": ({"rule": "crt_flat", "head_direction": "random"}, "linear", "linear", LINEAR),
    "crt, effective number": ({"rule": "crt", "sampling": "effective_number"}, "linear", "linear", LINEAR),
    "crt, progressive": ({"rule": "crt", "sampling": "progressive"}, "linear", "linear", LINEAR),
    "crt, gcl": (
        {"rule": "crt", "loss": "gcl", "sampling": "effective_number", "sampling_beta": 0.999},
        "cosine", "cosine", {"weight"},
    ),
    "adversarial, ldam": ({"rule": "adversarial", "loss": "ldam"}, "cosine", "cosine", {"weight"}),
    "lws": ({}, "linear", "linear", LINEAR),
    "lws, cached": ({"rule": "lws", "cache_features": True}, "linear", "linear", LINEAR),
    "mislas": (SMOOTHED, "linear", "linear", LINEAR),
    "mislas, shifted": ({**SMOOTHED, "shift_batch_norm": True}, "linear", "linear", LINEAR),
    "disalign": ({}, "linear", "disalign", {"logit_scale", "logit_bias", "confidence_weight", "confidence_bias"}),
    "tau_norm": ({}, "linear", "linear", LINEAR),
    "ncm": ({}, "linear", "linear", LINEAR),
    "ncm, cosine": ({"rule": "ncm", "ncm_metric": "cosine"}, "linear", "linear", LINEAR),
}  # fmt: skip


def model_of(toy, case):
    model = toy.model("cnn")
    if CASES[case][1] != "linear":
        replace_classifier(model, CASES[case][1])
    else:
        nn.init.constant_(model.timm_model.fc.bias, 0.1)
    return model


def trainer_of(toy, folder, case, **more):
    options = {"rule": case.partition(",")[0], **CASES[case][0]}
    return toy.trainer(folder, stage=2, model=model_of(toy, case), **options, **more)


def test_every_rule_has_a_case() -> None:
    assert {case.partition(",")[0] for case in CASES} == set(RULES)


@pytest.mark.parametrize("case", CASES)
def test_moves_what_it_should_and_loads_elsewhere(toy, tmp_path, case) -> None:
    trainer = trainer_of(toy, tmp_path, case)
    before = toy.weights(trainer)
    flags = {name: p.requires_grad for name, p in trainer.model.named_parameters() if ".fc." not in name}
    trainer.train()
    after = toy.weights(trainer)
    start = {name: value for name, value in before.items() if name in after}
    if case == "disalign":
        new = HEADS["disalign"].from_linear(trainer_of(toy, tmp_path, "crt").model.timm_model.fc)
        start |= {f"timm_model.fc.{name}": value.detach() for name, value in new.named_parameters()}
    assert start.keys() == after.keys()
    moved = {name for name, value in after.items() if not torch.equal(value, start[name])}
    statistics = {name for name in after if "running_" in name or "num_batches" in name}
    assert moved & statistics == (statistics if "shifted" in case else set())
    assert moved - statistics == {f"timm_model.fc.{name}" for name in CASES[case][3]}
    now = {name: p.requires_grad for name, p in trainer.model.named_parameters() if ".fc." not in name}
    assert now == flags

    trainer.save_model(str(tmp_path / "model"))
    batch = {"pixel_values": torch.stack([item["pixel_values"] for item in toy.images()])}
    assert find_classifier(trainer.model, batch).kind == CASES[case][2]
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).logits
        loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()(**batch).logits
    assert torch.equal(loaded, expected)
    plain = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["model_type"] == "timm_wrapper"
    assert plain == (CASES[case][2] == "linear")


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            raise Killed


@pytest.mark.parametrize(
    "case", ["adversarial_released", "crt, gcl", "lws", "lws, cached", "mislas, shifted", "disalign"]
)
def test_resumed_equals_uninterrupted(toy, tmp_path, case) -> None:
    options = {"save_strategy": "steps", "save_steps": 3}
    whole = trainer_of(toy, tmp_path / "whole", case, **options)
    whole.train()
    with pytest.raises(Killed):
        trainer_of(toy, tmp_path / "killed", case, callbacks=[KillAt(4)], **options).train()
    resumed = trainer_of(toy, tmp_path / "killed", case, **options)
    resumed.train(resume_from_checkpoint=True)
    for name, value in toy.weights(whole).items():
        assert torch.equal(toy.weights(resumed)[name], value), name
    if case in ("lws", "disalign"):
        checkpoint = load_with_head(tmp_path / "killed" / "checkpoint-3")
        assert checkpoint.config.classifier_head["kind"] == case


def test_lws_is_a_factor_for_each_class(toy, tmp_path) -> None:
    trainer = trainer_of(toy, tmp_path, "lws")
    before = {name: value.clone() for name, value in trainer.model.timm_model.fc.named_parameters()}
    trainer.train()
    head = trainer.model.timm_model.fc
    factors = (head.bias / before["bias"]).detach()
    torch.testing.assert_close(head.weight.detach(), factors[:, None] * before["weight"].detach())
    assert (factors - 1).abs().min() > 1e-5


def test_the_prior_that_is_recorded(toy, tmp_path) -> None:
    wanted = {"crt": "uniform", "lws": "uniform", "crt, effective number": None, "adversarial_released": None}
    for case, prior in wanted.items():
        trainer = trainer_of(toy, tmp_path, case)
        trainer.resolve()
        assert trainer.model.config.training_prior == prior, case
    trainer = trainer_of(toy, tmp_path, "crt", sampling="instance")
    trainer.resolve()
    assert trainer.model.config.training_prior == "train"


def test_hyperparameter_search_sees_a_new_model_each_time(toy, tmp_path) -> None:
    args = ClassifierTrainingArguments(str(tmp_path), rule="lws", **{**toy.defaults, "max_steps": 1})
    trainer = ClassifierTrainer(model_init=lambda: toy.model("cnn"), args=args, train_dataset=toy.images())
    weights = []
    for _ in range(2):
        trainer.train()
        weights.append(trainer.model.timm_model.fc.weight.detach().clone())
    assert torch.equal(*weights)


def cosine(toy, **options):
    model = toy.model("cnn")
    replace_classifier(model, "cosine", **options)
    return model


def deconfounded(toy):
    model = toy.model("cnn")
    replace_classifier(model, "tde")
    return model


REFUSED = {
    "tau": ({"rule": "tau_norm", "tau": -1.0}, "tau must be a finite number of at least 0"),
    "tau of another rule": ({"rule": "crt", "tau": 0.5}, "tau=0.5: no effect with rule='crt'"),
    "loss of a closed rule": ({"rule": "tau_norm", "loss": "focal"}, "loss='focal': no effect with rule='tau_norm'"),
    "cache of a closed rule": ({"rule": "ncm", "cache_features": True}, "cache_features=True: no effect"),
    "metric": ({"rule": "ncm", "ncm_metric": "taxi"}, "ncm_metric='taxi' is not known; choose euclidean or cosine"),
    "loss of mislas": ({"rule": "mislas"}, "label-aware smoothing, not loss='cross_entropy': set"),
    "cap": ({"rule": "adversarial_released", "adversarial_cap": 1.5}, "adversarial_cap must lie in 0..1"),
    "cap of the paper's rule": ({"adversarial_cap": 0.5}, "adversarial_cap=0.5: no effect with rule='adversarial'"),
    "relative scale as released": (
        {"rule": "adversarial_released", "relative_adversarial_scale": 0.1},
        "relative_adversarial_scale=0.1: no effect",
    ),
    "weights twice": (
        {"rule": "adversarial_released", "loss": "class_balanced"},
        "rule='adversarial_released' weights the classes itself",
    ),
    "disalign, weights twice": ({"rule": "disalign", "loss": "class_balanced"}, "rule='disalign' weights the classes"),
    "exponent": ({"rule": "disalign", "reweighting_exponent": -1.0}, "reweighting_exponent must be at least 0"),
    "fresh factors": ({"rule": "lws", "reinitialize_classifier": True}, "reinitialize_classifier=True: no effect"),
    "scheme": ({"sampling": "odd"}, "Unknown sampling scheme 'odd'"),
    "beta": ({"sampling_beta": 0.9}, "`beta` has no effect on sampling scheme 'class'"),
    "progressive by steps": ({"sampling": "progressive", "max_steps": 2}, "needs num_train_epochs: leave"),
    "statistics without BatchNorm": ({"model": "vit", "shift_batch_norm": True}, "the model has no BatchNorm"),
    "lws on cosines": (
        {"rule": "lws", "model": cosine},
        "kind 'cosine': turn it .*, or choose one of adversarial, adversarial_released, crt",
    ),
    "tau_norm on cosines": ({"rule": "tau_norm", "model": cosine}, "does not retrain a classifier of kind 'cosine'"),
    "tde": ({"rule": "crt", "model": deconfounded}, r"kind 'tde': turn it .* fold_classifier\(model\) first\."),
    "ldam on a linear classifier": ({"loss": "ldam"}, "needs cosines, but the classifier is linear: put a cosine"),
    "scaled twice": (
        {"loss": "gcl", "model": lambda toy: cosine(toy, scale=16.0)},
        "multiplies the cosines by 30, and the classifier scales them as well",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_first_step(toy, tmp_path, case) -> None:
    options, message = REFUSED[case]
    options = {**options, "model": options["model"](toy)} if callable(options.get("model")) else options
    trainer = toy.trainer(tmp_path, stage=2, **options)
    before = toy.weights(trainer)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    after = toy.weights(trainer)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_statistics_cannot_shift_what_is_cached(tmp_path) -> None:
    with pytest.raises(ValueError, match="shift_batch_norm changes the features that cache_features keeps"):
        ClassifierTrainingArguments(str(tmp_path), shift_batch_norm=True, cache_features=True)


def test_closed_rules_have_nothing_to_resume(toy, tmp_path) -> None:
    with pytest.raises(ValueError, match="rule='ncm' has no steps to resume"):
        toy.trainer(tmp_path, stage=2, rule="ncm").train(resume_from_checkpoint=True)


def test_a_class_without_images_has_no_mean(toy, tmp_path) -> None:
    data = [item for item in toy.images() if item["label"] != 2]
    trainer = toy.trainer(tmp_path, stage=2, rule="ncm", train_dataset=data, class_counts=toy.counts)
    with pytest.raises(ValueError, match=r"Classes \[2\] have no training image"):
        trainer.train()


def test_an_own_rule_by_name(toy, tmp_path, monkeypatch) -> None:
    from ccsam_hf.training import Rule, register_rule

    monkeypatch.setattr(RULES, "_parts", dict(RULES))

    @register_rule("halved")
    class Halved(Rule):
        def objective(self, step):
            return super().objective(step) / 2

    def moved(rule: str) -> dict:
        trainer = toy.trainer(tmp_path, stage=2, rule=rule, max_steps=1, optim_args="momentum=0.0")
        before = toy.weights(trainer)
        trainer.train()
        return {n: v - before[n] for n, v in toy.weights(trainer).items() if v.is_floating_point()}

    whole, half = moved("crt"), moved("halved")
    assert any(v.any() for v in whole.values())
    for name, value in whole.items():
        torch.testing.assert_close(half[name], value / 2, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="registered already"):
        register_rule("crt")(Halved)
    with pytest.raises(ValueError, match="A rule is a class derived from"):
        register_rule("other")(dict)
