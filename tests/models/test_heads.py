"""Replaced classifiers: their formulas, what folding keeps, and that they are found, saved and loaded."""

import json
import math
import subprocess
import sys

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification

from ccsam_hf.models import (
    HEADS,
    FeatureTap,
    add_remote_code,
    create_model,
    find_classifier,
    fold_classifier,
    load_with_head,
    replace_classifier,
)

X = {"pixel_values": torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
# The classifier's options, and what folding keeps.
CASES = {
    "cosine": ({"scale": 16.0}, "predictions"),
    "cosine, learned": ({"scale": 16.0, "learned_scale": True}, "predictions"),
    "lws": ({}, "logits"),
    "disalign": ({}, None),
    "tde": ({}, None),
    "tde, one head": ({"num_heads": 1, "alpha": 1.5}, "predictions"),
    "reslt": ({}, "logits"),
}
FOLDABLE = [case for case, (_, preserved) in CASES.items() if preserved]


def vit(**kwargs):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=8, patch_size=4, **{"num_labels": 5, **small, **kwargs})
    )


def shaken(case, model=None):
    """A model with the classifier of a case, all of whose parameters and buffers have moved from their start."""
    torch.manual_seed(0)
    model = create_model("cifar_resnet20", 5, input_size=8) if model is None else model
    head = replace_classifier(model, case.partition(",")[0], **CASES[case][0])
    with torch.no_grad():
        for value in [*head.parameters(), *head.buffers()]:
            if case != "cosine" or value.ndim:  # its fixed scale
                value.add_(0.3 * torch.rand_like(value))
    return model.eval(), head


def logits_of(model):
    with torch.no_grad():
        return model.eval()(**X).logits


def linear(features=6, classes=5):
    torch.manual_seed(3)
    return nn.Linear(features, classes).double()


Z = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def unit(v):
    v = v.detach()
    return v / math.sqrt(sum(float(x) ** 2 for x in v))


def test_cosine_formula() -> None:
    head = HEADS["cosine"].from_linear(linear(), scale=7.0)
    for i, z in enumerate(Z):
        for c, w in enumerate(head.weight):
            assert head(Z)[i, c].item() == pytest.approx(7 * float(unit(z) @ unit(w)), abs=1e-12)


def test_disalign_formula() -> None:
    head = HEADS["disalign"].from_linear(linear())
    assert torch.equal(head(Z), linear()(Z))  # no change at the start
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    for i, z in enumerate(Z):
        sigma = 1 / (1 + math.exp(-float((head.confidence_weight[0] @ z + head.confidence_bias).detach())))
        for c in range(5):
            logit = float((head.weight[c] @ z + head.bias[c]).detach())
            aligned = head.logit_scale[c].item() * logit + head.logit_bias[c].item()
            assert head(Z)[i, c].item() == pytest.approx(sigma * aligned + (1 - sigma) * logit, abs=1e-12)


def test_lws_formula() -> None:
    head = HEADS["lws"].from_linear(linear())
    assert torch.equal(head(Z), linear()(Z))
    head.scale.data = torch.arange(5.0).double()
    torch.testing.assert_close(head(Z), torch.arange(5.0) * linear()(Z))


def tde_reference(head, z, direction, removed):
    size = head.in_features // head.num_heads
    logits = []
    for w in head.weight:
        total = 0.0
        for k in range(0, head.in_features, size):
            x, v, d = unit(z[k : k + size]), w.detach()[k : k + size], unit(direction[k : k + size])
            if removed:
                x = x - head.alpha * float(x @ d) * d
            total += float(x @ v) / (float(v.norm()) + head.gamma)
        logits.append(head.scale / head.num_heads * total)
    return torch.tensor(logits, dtype=torch.float64)


@pytest.mark.parametrize("num_heads", [1, 2, 3])
def test_tde_formula(num_heads) -> None:
    head = HEADS["tde"].from_linear(linear(), num_heads=num_heads, alpha=2.0, momentum=0.75)
    direction = torch.zeros(6, dtype=torch.float64)
    for batch in (Z, Z + 1):
        trained = head.train()(batch)
        direction = 0.75 * direction + 0.25 * batch.mean(0)
    torch.testing.assert_close(head.direction, direction)
    for i in range(3):
        torch.testing.assert_close(trained[i], tde_reference(head, Z[i] + 1, direction, removed=False))
        torch.testing.assert_close(head.eval()(Z)[i], tde_reference(head, Z[i], direction, removed=True))
    head.alpha = 0.0
    torch.testing.assert_close(head(Z + 1), trained)


def test_tde_without_training_removes_nothing() -> None:
    head = HEADS["tde"].from_linear(linear()).eval()
    before = head(Z)
    head.alpha = 0.0
    assert torch.equal(head(Z), before)
    assert torch.equal(head.direction, torch.zeros(6))


def test_reslt_formula() -> None:
    head = HEADS["reslt"].from_linear(linear())
    parts = [(head.weight @ branch @ Z.T).T + head.bias for branch in head.branches]
    torch.testing.assert_close(head.branch_logits(Z), torch.stack(parts))
    torch.testing.assert_close(head(Z), parts[0] + parts[1] + parts[2])


@pytest.mark.parametrize("case", FOLDABLE)
@pytest.mark.parametrize("kind", ["timm", "vit"])
def test_folding_keeps_what_it_says(tmp_path, case, kind) -> None:
    model = create_model("cifar_resnet20", 5, input_size=8) if kind == "timm" else vit()
    before = model.config.to_dict()
    model, head = shaken(case, model)
    name = find_classifier(model, X).name
    with FeatureTap(head) as tap:
        expected = logits_of(model)
        lengths = tap.features.norm(dim=1, keepdim=True)
    folded = fold_classifier(model, logit_scale=2.0)
    assert (folded.name, folded.kind, folded.preserved) == (name, head.kind, CASES[case][1])
    assert type(model.get_submodule(name)) is nn.Linear
    found = logits_of(model)
    factor = lengths if folded.preserved == "predictions" else 1
    torch.testing.assert_close(found, 2 * expected * factor, rtol=1e-4, atol=1e-4)
    assert {**model.config.to_dict(), "architectures": None} == {**before, "architectures": None}
    model.save_pretrained(tmp_path)
    assert torch.equal(logits_of(AutoModelForImageClassification.from_pretrained(tmp_path)), found)


@pytest.mark.parametrize("case", ["disalign", "tde"])
def test_no_linear_function(case) -> None:
    with pytest.raises(ValueError, match=f"'{case}' classifier is no linear function of the features"):
        fold_classifier(shaken(case)[0])


def test_folding_a_layer_without_bias() -> None:
    for case in FOLDABLE:
        model = create_model("cifar_resnet20", 5, input_size=8)
        model.timm_model.fc = nn.Linear(64, 5, bias=False)
        model, _ = shaken(case, model)
        expected = logits_of(model).argmax(1)
        fold_classifier(model)
        assert model.timm_model.fc.bias is None
        assert torch.equal(logits_of(model).argmax(1), expected)


@pytest.mark.parametrize("case", CASES)
def test_found_and_left_as_it_was(case) -> None:
    model, head = shaken(case)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found = find_classifier(model, X)
    assert (found.kind, found.name) == (head.kind, "timm_model.fc")
    assert found.module is head
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    with FeatureTap(head) as tap, torch.no_grad():
        assert torch.equal(model(**X).logits, head.forward(tap.features))


def test_a_linear_layer_is_linear() -> None:
    assert find_classifier(create_model("cifar_resnet20", 5, input_size=8), X).kind == "linear"


@pytest.mark.parametrize("case", CASES)
def test_saved_and_loaded(tmp_path, case) -> None:
    model, head = shaken(case)
    model.config.class_counts = [5, 4, 3, 2, 1]
    model.save_pretrained(tmp_path)
    loaders = (load_with_head, AutoModelForImageClassification.from_pretrained)
    for again in [load(tmp_path) for load in loaders]:
        assert torch.equal(logits_of(again), logits_of(model))
        assert find_classifier(again, X).module.options() == head.options()
        assert again.config.class_counts == [5, 4, 3, 2, 1]
        assert again.config.id2label == model.config.id2label
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert processor.data_config["input_size"] == (3, 8, 8)


def test_other_models_are_loaded_by_us_and_refused_by_those_who_do_not_know(tmp_path) -> None:
    model, _ = shaken("cosine", vit())
    model.save_pretrained(tmp_path)
    assert torch.equal(logits_of(load_with_head(tmp_path)), logits_of(model))
    with pytest.raises(ValueError, match="vit_with_head"):
        AutoModelForImageClassification.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'vit' model with a replaced classifier, which has no remote code"):
        add_remote_code(tmp_path)


def test_loaded_folded_and_loaded_again(tmp_path) -> None:
    model, _ = shaken("lws")
    model.save_pretrained(tmp_path / "first")
    again = load_with_head(tmp_path / "first")
    fold_classifier(again)
    again.save_pretrained(tmp_path / "second")
    final = AutoModelForImageClassification.from_pretrained(tmp_path / "second")
    assert type(final) is transformers.TimmWrapperForImageClassification
    torch.testing.assert_close(logits_of(final), logits_of(model))
    with pytest.raises(ValueError, match="has no replaced classifier: load it by transformers"):
        load_with_head(tmp_path / "second")


STRANGER = """
import sys, torch
from transformers import AutoModelForImageClassification, pipeline
folder = sys.argv[1]
try:
    AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=False)
    raise SystemExit("loaded without the code")
except ValueError:
    pass
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
assert not any(name.startswith("ccsam_hf") for name in sys.modules)
with torch.no_grad():
    assert torch.allclose(model(torch.ones(1, 3, 8, 8)).logits, torch.load(sys.argv[2]))
pipeline("image-classification", model=folder, trust_remote_code=True, device="cpu")
"""


def test_remote_code_loads_without_this_package(tmp_path, monkeypatch) -> None:
    model, _ = shaken("tde")
    model.save_pretrained(tmp_path / "model")
    copy = add_remote_code(tmp_path / "model")
    assert copy == tmp_path / "model" / "headed_timm.py"
    assert set(json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))["auto_map"]) == {
        "AutoConfig",
        "AutoModelForImageClassification",
    }
    with torch.no_grad():
        torch.save(model(torch.ones(1, 3, 8, 8)).logits, tmp_path / "logits.pt")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    call = [sys.executable, "-c", STRANGER, str(tmp_path / "model"), str(tmp_path / "logits.pt")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, cwd=tmp_path, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]


REFUSED = {
    "unknown kind": ("magic", {}, "Unknown kind of classifier 'magic': choose one of cosine, lws"),
    "unknown option": ("lws", {"scale": 2}, "A 'lws' classifier does not take these options.*scale"),
    "scale": ("cosine", {"scale": 0.0}, "scale must be a positive number, got 0.0"),
    "not a divisor": ("tde", {"num_heads": 5}, "num_heads=5 does not divide the 64 features"),
    "momentum": ("tde", {"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case) -> None:
    kind, options, message = REFUSED[case]
    model = create_model("cifar_resnet20", 5, input_size=8)
    with pytest.raises(ValueError, match=message):
        replace_classifier(model, kind, **options)
    assert find_classifier(model, X).kind == "linear"
    assert model.config.model_type == "timm_wrapper"


def test_replaced_twice_or_ambiguous_or_nothing_to_fold() -> None:
    with pytest.raises(ValueError, match="has a replaced classifier already: fold_classifier it first"):
        replace_classifier(shaken("lws")[0], "cosine")
    model = vit(num_labels=16)
    with pytest.raises(ValueError, match=r"Not one nn.Linear of ViTForImageClassification has 16 outputs, but: vit"):
        replace_classifier(model, "cosine")
    assert replace_classifier(model, "cosine", find_classifier(model, X).name) is model.classifier
    with pytest.raises(ValueError, match="no replaced classifier: there is nothing to fold"):
        fold_classifier(vit())
