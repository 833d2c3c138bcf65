"""Bad input is refused before the first step, by a message that names the culprit and the remedy."""

import re

import pytest
import torch
from torch import nn

from ccsam_hf.training import CCSAMTrainer, CCSAMTrainingArguments, ClassifierTrainer, ClassifierTrainingArguments


def relabelled(toy, labels):
    return [{**item, "label": y} for item, y in zip(toy.images(), labels, strict=True)]


def replaced(toy, label):
    return relabelled(toy, [label, *toy.labels[1:]])


TWICE = "would bypass the perturbation"
OPTIONS = [
    (1, {"label_smoothing_factor": 0.1}, TWICE),
    (1, {"label_smoothing_factor": 0.1}, r"loss='label_smoothing' with loss_args={'epsilon': 0.1}"),
    (2, {"label_smoothing_factor": 0.1}, TWICE),
    (1, {"compute_loss_func": lambda *a, **k: 0}, TWICE),
    (1, {"radius_scale": 0.1, "relative_radius": 0.1}, "exactly one of radius, radius_scale and relative_radius"),
    (1, {"radius_scale": -0.1}, "radius_scale must be a finite number"),
    (1, {"relative_radius": 0.2}, "above max_perturbation_ratio"),
    (1, {"radius_scale": 0.1, "radius_momentum": 0.5}, "radius_momentum=0.5: no effect without relative_radius"),
    (1, {"perturbation": "none", "flat_weight": 0.5}, "flat_weight=0.5: no effect with perturbation='none'"),
    (1, {"perturbation": "magic"}, "perturbation='magic' is not known"),
    (1, {"perturbed_layers": "some"}, "perturbed_layers='some' is not known"),
    (1, {"feature_gradient": "both"}, "feature_gradient='both' is not known"),
    (1, {"class_reduction": "median"}, "unknown class_reduction 'median'"),
    (1, {"loss": "hinge"}, "Unknown loss 'hinge'"),
    (1, {"loss": "focal", "loss_args": {"delta": 1}}, "has no argument delta"),
    (1, {"metric_for_best_model": "eval_few", "few_shot": 1}, "can never be reported"),
    (1, {"class_counts": [17, 9, 4]}, "class_counts has 3 entries, but the classifier has 4 outputs"),
    (1, {"class_counts": [17, 9, 4, 0]}, r"class 3 has 2 items and 0 in class_counts"),
    (1, {"class_counts": [17, 9, 4, -2]}, "whole numbers of at least 0"),
    (1, {"gradient_checkpointing": True}, "moves BatchNorm's running statistics twice"),
    (1, {"train_dataset": []}, "training set is empty"),
    (2, {"train_dataset": []}, "training set is empty"),
    (2, {"rule": "magic"}, "Unknown rule 'magic'"),
    (2, {"rule": "crt", "adversarial_scale": 1.0}, "adversarial_scale=1.0: no effect with rule='crt'"),
    (2, {"adversarial_scale": 1.0, "relative_adversarial_scale": 1.0}, "not both"),
    (2, {"adversarial_scale": -1.0}, "adversarial_scale must be a finite number"),
    (2, {"adversarial_schedule": "late"}, "adversarial_schedule='late' is not known"),
]


@pytest.mark.parametrize(
    ("stage", "options", "message"), OPTIONS, ids=lambda v: None if isinstance(v, int) else str(v)[:40]
)
def test_options(toy, tmp_path, stage, options, message) -> None:
    trainer = toy.trainer(tmp_path, stage=stage, **options)
    before = toy.weights(trainer)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in toy.weights(trainer).items())


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda toy: replaced(toy, 4), "Label 4 .* outside 0..3"),
        (lambda toy: replaced(toy, -1), "Label -1 .* negative"),
        (lambda toy: relabelled(toy, [0] * 17 + [1] * 9 + [2] * 6), "1 of 4 classes have no image: 3"),
        (
            lambda toy: [{"pixel_values": item["pixel_values"]} for item in toy.images()],
            "Item 0 has no 'label'; its keys are pixel_values",
        ),
    ],
    ids=["too large", "negative", "absent class", "missing column"],
)
def test_labels(toy, tmp_path, stage, make, message) -> None:
    with pytest.raises(ValueError, match=message):
        toy.trainer(tmp_path, stage=stage, train_dataset=make(toy)).train()


class TwoHeads(nn.Module):
    main_input_name = "pixel_values"

    def __init__(self, config) -> None:
        super().__init__()
        self.config, self.a, self.b = config, nn.Linear(192, 4), nn.Linear(192, 4)

    def forward(self, pixel_values):
        z = pixel_values.flatten(1)
        return {"logits": (self.a(z) + self.b(z)) / 2}


@pytest.mark.parametrize("stage", [1, 2])
def test_a_model_without_one_linear_classifier(toy, tmp_path, stage) -> None:
    with pytest.raises(ValueError, match="not the output of one linear layer: a, b"):
        toy.trainer(tmp_path, stage=stage, model=TwoHeads(toy.model("vit").config)).train()


def test_mixup_needs_images(toy, tmp_path) -> None:
    with pytest.raises(ValueError, match="mixup_alpha needs floating-point inputs"):
        toy.trainer(tmp_path, model="bert", mixup_alpha=0.2).train()


def test_multi_label_models(toy, tmp_path) -> None:
    model = toy.model("vit")
    model.config.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match="problem_type is 'multi_label_classification'"):
        toy.trainer(tmp_path, model=model).train()


def test_streams_need_counts_and_cannot_be_balanced(toy, tmp_path) -> None:
    import datasets

    stream = datasets.Dataset.from_list(toy.images()).with_format("torch").to_iterable_dataset()
    with pytest.raises(ValueError, match="class_counts"):
        toy.trainer(tmp_path, train_dataset=stream, max_steps=2).train()
    toy.trainer(tmp_path, train_dataset=stream, max_steps=2, class_counts=toy.counts).train()
    with pytest.raises(ValueError, match="without streaming"):
        toy.trainer(tmp_path, stage=2, train_dataset=stream, max_steps=2, class_counts=toy.counts).train()


def test_the_wrong_arguments_class(toy, tmp_path) -> None:
    with pytest.raises(ValueError, match="needs ClassifierTrainingArguments, got CCSAMTrainingArguments"):
        ClassifierTrainer(model=toy.model(), args=CCSAMTrainingArguments(str(tmp_path), report_to=[]))
    with pytest.raises(ValueError, match="needs CCSAMTrainingArguments"):
        CCSAMTrainer(model=toy.model(), args=ClassifierTrainingArguments(str(tmp_path), report_to=[]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: CCSAMTrainingArguments(d, flat_weight=1.5), "flat_weight must lie in 0..1"),
        (lambda d: CCSAMTrainingArguments(d, loss_args="[1]"), r"loss_args='\[1\]' must map names to values"),
        (lambda d: ClassifierTrainingArguments(d, loss_args="{gamma: 2"), "loss_args='{gamma: 2' is no JSON"),
        (lambda d: CCSAMTrainingArguments(d, classifier_args=[1]), r"classifier_args=\[1\] must map names"),
        (lambda d: CCSAMTrainingArguments(d, mixup_alpha=-1.0), "mixup_alpha must be at least 0"),
        (lambda d: CCSAMTrainingArguments(d, mixup_alpha=float("inf")), "mixup_alpha must be at least 0 and finite"),
        (lambda d: CCSAMTrainingArguments(d, weight_decay=float("nan")), "weight_decay must be a finite number"),
        (lambda d: ClassifierTrainingArguments(d, weight_decay=-0.1), "weight_decay must be a finite number"),
        (
            lambda d: CCSAMTrainingArguments(d, lr_milestones=[1.0], lr_decay=float("nan")),
            "lr_decay must be a finite number above 0, got nan",
        ),
        (lambda d: CCSAMTrainingArguments(d, lr_milestones=[1.0, 1.0]), "names an epoch twice"),
        (lambda d: CCSAMTrainingArguments(d, lr_milestones=[float("nan")]), "lr_milestones must be finite epochs"),
        (
            lambda d: CCSAMTrainingArguments(d, gradient_accumulation_steps=0),
            "gradient_accumulation_steps must be at least 1, got 0",
        ),
        (lambda d: CCSAMTrainingArguments(d, lr_decay=0.01), "lr_decay has no effect without lr_milestones"),
        (
            lambda d: CCSAMTrainingArguments(d, lr_milestones=[1.0], lr_scheduler_type="cosine"),
            "lr_milestones replaces the scheduler",
        ),
        (lambda d: ClassifierTrainingArguments(d, cached_views=3), "cached_views has no effect without cache_features"),
        (
            lambda d: CCSAMTrainingArguments(d, shot_boundaries="fuzzy"),
            "boundaries='fuzzy' is not known; choose one of strict, inclusive",
        ),
    ],
)
def test_arguments(tmp_path, make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(str(tmp_path))


@pytest.mark.parametrize("stage", [1, 2])
def test_milestones_beyond_the_run(toy, tmp_path, stage) -> None:
    with pytest.raises(ValueError, match="2 is not reached in 2 epochs"):
        toy.trainer(tmp_path, stage=stage, lr_milestones=[1.0, 2.0]).train()


def test_a_second_stage_without_training(toy, tmp_path) -> None:
    with pytest.raises(ValueError, match="num_train_epochs=0 would leave stage 1 as it is"):
        toy.trainer(tmp_path, stage=2, num_train_epochs=0).train()


@pytest.mark.parametrize(
    ("stage", "options"),
    [(1, {}), (1, {"classifier": "cosine"}), (2, {"rule": "crt"}), (2, {"rule": "lws"}), (2, {"rule": "ncm"})],
)
def test_the_classifier_is_looked_for_once(toy, tmp_path, monkeypatch, stage, options) -> None:
    from ccsam_hf.training import probing

    calls = []
    find = probing.find_classifier
    monkeypatch.setattr(probing, "find_classifier", lambda *given: calls.append(given) or find(*given))
    trainer = toy.trainer(tmp_path, stage=stage, **{"num_train_epochs": 1, **options})
    trainer.train()
    assert len(calls) == 1
    trainer.train()
    assert len(calls) == 2


def test_only_two_inherited_defaults_differ(tmp_path) -> None:
    from dataclasses import fields

    from transformers import TrainingArguments

    stock = {f.name: f.default for f in fields(TrainingArguments)}
    for arguments in (CCSAMTrainingArguments, ClassifierTrainingArguments):
        ours = {f.name: f.default for f in fields(arguments) if f.name in stock}
        assert {name for name in stock if ours[name] != stock[name]} == {"remove_unused_columns", "hub_private_repo"}


@pytest.mark.parametrize("named", [True, False], ids=["by name", "the last one"])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_checkpoint_of_the_other_stage(toy, tmp_path, stage, named) -> None:
    toy.trainer(tmp_path, stage=3 - stage, max_steps=1, save_strategy="steps", save_steps=1).train()
    folder = tmp_path / "checkpoint-1"
    trainer = toy.trainer(tmp_path, stage=stage)
    before = toy.weights(trainer)
    writer = {1: "was not written by stage 1", 2: r"was written by stage 1 \(CCSAMTrainer\)"}[stage]
    with pytest.raises(ValueError, match=f"resume_from_checkpoint: {re.escape(str(folder))} {writer}.*from_pretrained"):
        trainer.train(resume_from_checkpoint=str(folder) if named else True)
    assert all(torch.equal(value, before[name]) for name, value in toy.weights(trainer).items())


def several_gpus(trainer) -> None:
    trainer.args._n_gpu = 2


LAUNCHES = [
    (several_gpus, r"2 GPUs with DataParallel.*`accelerate launch --num_processes 2`.*CUDA_VISIBLE_DEVICES=0"),
    (lambda trainer: setattr(trainer, "is_fsdp_enabled", True), r"DeepSpeed and FSDP are not supported: use DDP"),
    (lambda trainer: setattr(trainer, "is_deepspeed_enabled", True), r"use DDP \(`accelerate launch --multi_gpu`\)"),
]


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(("launch", "message"), LAUNCHES, ids=["DataParallel", "FSDP", "DeepSpeed"])
def test_launches_that_are_not_right_for_it(toy, tmp_path, stage, launch, message) -> None:
    trainer = toy.trainer(tmp_path, stage=stage)
    launch(trainer)
    with pytest.raises(ValueError, match=message):
        trainer.train()
