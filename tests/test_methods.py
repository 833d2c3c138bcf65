"""Every method trains, moves exactly the parameters it should, is saved and loads; the list says so."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForImageClassification

from ccsam_hf.__main__ import run_command
from ccsam_hf.methods import LEFT_OUT, METHODS, find_method, main
from ccsam_hf.models import create_model, load_with_head
from ccsam_hf.training import (
    CCSAMTrainer,
    CCSAMTrainingArguments,
    ClassifierTrainer,
    ClassifierTrainingArguments,
)

LABELS = [0] * 9 + [1] * 4 + [2] * 2 + [3]
QUICK: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.05,
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "many_shot": 5,
    "few_shot": 3,
}
# The classifier's tensors that stage 2 moves, and the kind of classifier in the end.
SECOND = {
    "ce_mixup_crt": {"weight", "bias"},
    "mislas": {"weight", "bias"},
    "gcl": {"weight"},
    "tau_norm": {"weight"},
    "disalign": {"logit_scale", "logit_bias", "confidence_weight", "confidence_bias"},
    "crt": {"weight", "bias"},
    "crt_dir": {"weight", "bias"},
    "crt_mag": {"weight", "bias"},
    "crt_dir_mag": {"weight", "bias"},
    "ccsam": {"weight", "bias"},
}
KINDS = {"ldam_drw": "cosine", "ldam_drw_sam": "cosine", "gcl": "cosine", "tde": "tde", "reslt": "reslt"}
KINDS |= {"disalign": "disalign"}


def images() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.randn(3, 8, 8, generator=generator) + y, "label": y} for y in LABELS]


def tensors(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def moved(model, before) -> set[str]:
    """Names of the tensors that are new or differ."""
    return {
        name for name, value in tensors(model).items() if name not in before or not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("name", METHODS)
def test_trains_what_it_should_and_loads(name, tmp_path) -> None:
    method = METHODS[name]
    sections = method.sections(epochs=1, milestones=False)
    torch.manual_seed(1)
    model = create_model("cifar_resnet20", 4, input_size=8)
    torch.nn.init.constant_(model.timm_model.fc.bias, 0.1)
    before = tensors(model)
    data = images()
    first = CCSAMTrainer(
        model, CCSAMTrainingArguments(str(tmp_path), **QUICK, **sections["stage1"]), train_dataset=data
    )
    first.train()
    assert first.state.global_step == 2
    parameters = {n for n, _ in model.named_parameters()}
    assert parameters <= moved(model, before)
    if method.stage2 is not None:
        before = tensors(model)
        args = ClassifierTrainingArguments(str(tmp_path), **QUICK, **sections["stage2"])
        ClassifierTrainer(model, args, train_dataset=data).train()
        changed = {n for n in moved(model, before) if "running_" not in n and "num_batches" not in n}
        zeroed = {"timm_model.fc.bias"} if name == "tau_norm" else set()
        assert changed == {f"timm_model.fc.{n}" for n in SECOND[name]} | zeroed
        statistics = {n for n in moved(model, before) if "running_" in n}
        assert bool(statistics) == (name == "mislas")
    model.save_pretrained(tmp_path / "model")
    load = load_with_head if name in KINDS else AutoModelForImageClassification.from_pretrained
    loaded, batch = load(tmp_path / "model").eval(), torch.stack([x["pixel_values"] for x in data])
    with torch.no_grad():
        torch.testing.assert_close(loaded(batch).logits, model.eval()(batch).logits)
    assert getattr(loaded.timm_model.fc, "kind", "linear") == KINDS.get(name, "linear")


def test_stage_2_is_where_the_tables_have_one() -> None:
    assert {name for name, method in METHODS.items() if method.stage2 is not None} == set(SECOND)


def test_deferred_weights_and_decay_fit_the_run() -> None:
    sections = METHODS["ldam_drw"].sections(epochs=200)
    assert sections["stage1"]["loss_args"] == {"drw_epoch": 160}
    assert sections["stage1"]["lr_decay"] == 0.01
    assert "lr_decay" not in METHODS["ldam_drw"].sections(200, milestones=False)["stage1"]
    assert sections["benchmark"] == {"second_stage": False, "control": False}


def test_the_ladder_of_table_2_changes_one_part_at_a_time() -> None:
    """Direction alone, length alone, both, and the second stage."""
    perturbations = [METHODS[n].stage1["perturbation"] for n in ("crt", "crt_dir", "crt_mag", "crt_dir_mag", "ccsam")]
    assert perturbations == ["none", "ccsam_direction", "ccsam_magnitude", "ccsam", "ccsam"]
    rules = [METHODS[n].stage2["rule"] for n in ("crt", "crt_dir", "crt_mag", "crt_dir_mag", "ccsam")]
    assert rules == ["crt"] * 4 + ["adversarial"]


def test_unknown_and_left_out_names() -> None:
    with pytest.raises(ValueError, match=r"no method 'cesam'; choose one of ce, ce_mixup"):
        find_method("cesam")
    with pytest.raises(ValueError, match="no source for its formula"):
        find_method("bgp")


def test_only_figures_with_a_source_are_quoted(capsys) -> None:
    assert {name for name, method in METHODS.items() if method.paper} == {"ce", "ccsam"}
    main([])
    text = capsys.readouterr().out
    assert all(f"{name}: {method.title} ({method.reference}" in text for name, method in METHODS.items())
    assert "cifar10-lt IR 100 83.92" in text
    assert all(title in text for title in LEFT_OUT)


def test_the_command_lists_one_method(capsys) -> None:
    run_command("methods", ["gcl"])
    printed = capsys.readouterr().out
    assert "Li et al., CVPR 2022" in printed
    assert "effective_number" in printed
    with pytest.raises(SystemExit):
        run_command("methods", ["bgp"])
    assert "no source" in capsys.readouterr().err
