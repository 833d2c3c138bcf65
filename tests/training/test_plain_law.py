"""Radius 0 or weight 0 is plain training, bit for bit."""

import pytest
import torch
from transformers import Trainer, TrainingArguments


@pytest.fixture(scope="module")
def stock_weights(toy, tmp_path_factory):
    options = {k: v for k, v in toy.defaults.items() if k not in ("many_shot", "few_shot")}
    args = TrainingArguments(str(tmp_path_factory.mktemp("stock")), remove_unused_columns=False, **options)
    trainer = Trainer(model=toy.model("cnn"), args=args, train_dataset=toy.images())
    trainer.train()
    return toy.weights(trainer)


@pytest.mark.parametrize(
    "options",
    [
        {"radius_scale": 0.0},
        {"relative_radius": 0.0},
        {"flat_weight": 0.0},
        {"perturbation": "none"},
    ],
    ids=lambda o: next(iter(o)),
)
def test_equals_the_stock_trainer_bit_for_bit(toy, tmp_path, stock_weights, options) -> None:
    trainer = toy.trainer(tmp_path, **options)
    trainer.train()
    for name, value in toy.weights(trainer).items():
        assert torch.equal(value, stock_weights[name]), name


def test_a_radius_changes_the_result(toy, tmp_path, stock_weights) -> None:
    trainer = toy.trainer(tmp_path, relative_radius=0.05)
    trainer.train()
    name = "timm_model.fc.weight"
    assert not torch.equal(toy.weights(trainer)[name], stock_weights[name])
