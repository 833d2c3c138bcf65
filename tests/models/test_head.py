"""The classifier is found by running the model, and its input can be tapped."""

import pytest
import torch
import transformers
from torch import nn

from ccsam_hf.models import FeatureTap, create_model, find_classifier

IDS = {"input_ids": torch.arange(28).reshape(4, 7)}


def pixels(side=32):
    return {"pixel_values": torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))}


def vit(**kwargs):
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, **kwargs}
    return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, **config))


def resnet():
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=5)
    return transformers.ResNetForImageClassification(config)


def bert_config(**kwargs):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformers.BertConfig(vocab_size=50, **small, **kwargs)


def bert(**kwargs):
    return transformers.BertForSequenceClassification(bert_config(**kwargs))


def distilbert():
    config = transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=16, num_labels=16)
    return transformers.DistilBertForSequenceClassification(config)


MODELS = {
    "timm": (lambda: create_model("cifar_resnet20", 10), pixels(), "timm_model.fc"),
    "timm nested head": (lambda: create_model("convnext_atto", 3), pixels(64), "timm_model.head.fc"),
    "vit": (lambda: vit(num_labels=3), pixels(), "classifier"),
    "vit with one class for each hidden unit": (lambda: vit(num_labels=16), pixels(), "classifier"),
    "resnet in a sequence": (resnet, pixels(), "classifier.1"),
    "bert with dropout and a pooler as wide": (lambda: bert(num_labels=16), IDS, "classifier"),
    "distilbert with a pre-classifier as wide": (distilbert, IDS, "classifier"),
    "tuple": (lambda: bert(num_labels=3, return_dict=False), IDS, "classifier"),
}


@pytest.mark.parametrize("case", MODELS)
def test_found(case):
    build, batch, name = MODELS[case]
    model = build()
    head = find_classifier(model, batch)
    assert head.name == name
    assert head.module is model.get_submodule(name)


def test_plain_tensor_and_double_precision():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4)).double()
    assert find_classifier(_Wrapped(model), {"x": torch.randn(3, 6).double()}).name == "inner.2"


def test_zero_initialised_head():
    model = bert(num_labels=5)
    nn.init.zeros_(model.classifier.weight)
    nn.init.zeros_(model.classifier.bias)
    assert find_classifier(model, IDS).name == "classifier"


def test_bfloat16_autocast():
    model = vit(num_labels=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert find_classifier(model, pixels()).name == "classifier"


def test_model_is_left_as_it_was():
    model = create_model("cifar_resnet20", 10)
    model.train()
    model.timm_model.layer1.eval()
    flags = [module.training for module in model.modules()]
    model.timm_model.fc.weight.grad = torch.ones_like(model.timm_model.fc.weight)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    find_classifier(model, pixels())
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model.timm_model.fc.weight.grad, torch.ones(10, 64))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_random_state_survives_dropout_and_a_refusal():
    random = torch.get_rng_state()
    model = bert(num_labels=3).train()
    torch.set_rng_state(random)
    find_classifier(model, IDS)
    with pytest.raises(ValueError, match="input_ids"):
        find_classifier(model, {})
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


class _Wrapped(nn.Module):
    """A model whose logits are made from an inner module's output by `after`."""

    def __init__(self, inner, after=lambda logits, training: logits):
        super().__init__()
        self.inner = inner
        self.after = after

    def forward(self, x):
        return self.after(self.inner(x), self.training)


class _ModulesToSave(nn.Module):
    """What PEFT puts around a head: the frozen original and the active copy."""

    def __init__(self, head):
        super().__init__()
        self.original_module = head
        self.modules_to_save = nn.ModuleDict({"default": nn.Linear(head.in_features, head.out_features)})

    def forward(self, x):
        return self.modules_to_save["default"](x)


def test_active_copy_of_a_peft_head():
    model = vit(num_labels=3)
    model.classifier = _ModulesToSave(model.classifier)
    assert find_classifier(model, pixels()).name == "classifier.modules_to_save.default"


class _Lora(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.base_layer = head
        self.down = nn.Linear(head.in_features, 2, bias=False)
        self.up = nn.Linear(2, head.out_features, bias=False)

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


def lora_head():
    model = vit(num_labels=3)
    model.classifier = _Lora(model.classifier)
    return model


def fresh_lora_head():
    model = lora_head()
    nn.init.zeros_(model.classifier.up.weight)
    return model


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        self.fc(x + 1)
        return self.fc(x)


def zero_head_scaled():
    fc = nn.Linear(6, 4)
    nn.init.zeros_(fc.weight)
    nn.init.zeros_(fc.bias)
    return _Wrapped(fc, lambda logits, training: 3 * logits)


class _Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)

    def forward(self, pixel_values):
        return {"logits": self.conv(pixel_values).mean((2, 3))}


X = {"x": torch.randn(3, 6)}
REFUSED = {
    "two heads averaged": (
        lambda: create_model("deit_tiny_distilled_patch16_224", 3, input_size=32),
        pixels(),
        r"not the output of one linear layer: timm_model.head, timm_model.head_dist have 3 outputs.*several heads",
    ),
    "adapter on the head": (lora_head, pixels(), "classifier.base_layer, classifier.up have 3 .* adapter on the head"),
    "adapter on the head that adds nothing yet": (
        fresh_lora_head,
        pixels(),
        "not the output of 'classifier.base_layer' alone.* adapter on the head",
    ),
    "convolutional head": (_Conv, pixels(), "_Conv has no nn.Linear that ran with 5 outputs per sample"),
    "a head for each token": (
        lambda: transformers.BertForTokenClassification(bert_config(num_labels=3)),
        IDS,
        r"logits have shape \(4, 7, 3\), not \(batch, classes\): use one label per sample",
    ),
    "no logits": (lambda: transformers.BertModel(bert_config()), IDS, "returns no logits: use a model for class"),
    "scaled": (lambda: _Wrapped(nn.Linear(6, 4), lambda y, t: 2 * y), X, "inner have 4 outputs, but W z . b differs"),
    "scaled, with a head of zeros": (zero_head_scaled, X, "logits are not the output of 'inner' alone"),
    "scaled in training": (
        lambda: _Wrapped(nn.Linear(6, 4), lambda y, t: y * (1 + t)),
        X,
        "not the output of 'inner' alone",
    ),
    "dropout on the logits": (
        lambda: _Wrapped(nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5))),
        X,
        "logits are not the output of 'inner.0' alone",
    ),
    "run twice": (_Twice, X, "'fc' runs 2 times in a forward pass, not once"),
    "not finite": (
        lambda: _Wrapped(nn.Linear(6, 4), lambda y, t: y / 0),
        X,
        "logits on the first batch are not finite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case):
    build, batch, message = REFUSED[case]
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message):
        find_classifier(build(), batch)


def test_two_equal_heads_are_ambiguous():
    class Equal(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)
            self.b.load_state_dict(self.a.state_dict())

        def forward(self, x):
            return (self.a(x) + self.b(x)) / 2

    with pytest.raises(ValueError, match="ambiguous: a, b all equal the logits"):
        find_classifier(Equal(), X)


def test_tap_gives_the_classifiers_input_with_its_graph():
    model = create_model("cifar_resnet20", 4)
    head = find_classifier(model, pixels(8))
    with FeatureTap(head.module) as tap:
        logits = model(**pixels(8)).logits
        assert torch.equal(nn.functional.linear(tap.features, head.module.weight, head.module.bias), logits)
        (gradient,) = torch.autograd.grad(logits.sum(), tap.features, retain_graph=True)
        assert torch.allclose(gradient, head.module.weight.sum(0).expand(4, -1))
        (through,) = torch.autograd.grad(tap.features.sum(), model.timm_model.conv1.weight)
        assert through.abs().max() > 0
        tap.clear()
        with pytest.raises(RuntimeError, match="No features were captured"):
            _ = tap.features
    assert not head.module._forward_pre_hooks
    model(**pixels(8))
    with pytest.raises(RuntimeError, match="No features were captured"):
        _ = tap.features
    tap.remove()


def test_tap_under_autocast():
    model = vit(num_labels=3)
    tap = FeatureTap(model.classifier)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(**pixels()).logits
    expected = nn.functional.linear(tap.features.float(), model.classifier.weight, model.classifier.bias)
    assert torch.allclose(expected, logits.float(), atol=2e-2)


def test_tap_in_a_compiled_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    tap = FeatureTap(model[2])
    compiled = torch.compile(model, backend="aot_eager")
    for _ in range(3):
        x = torch.randn(3, 6)
        tap.clear()
        logits = compiled(x)
        assert torch.allclose(tap.features, model[1](model[0](x)))
        model.zero_grad()
        (logits.sum() + tap.features.square().sum()).backward()
        found = model[0].weight.grad.clone()
        model.zero_grad()
        hidden = model[1](model[0](x))
        (nn.functional.linear(hidden, model[2].weight, model[2].bias).sum() + hidden.square().sum()).backward()
        assert torch.allclose(found, model[0].weight.grad, atol=1e-6)


def test_tap_under_ddp(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
        tap = FeatureTap(model[2])
        logits = nn.parallel.DistributedDataParallel(model)(X["x"])
        assert torch.equal(model[2](tap.features), logits)
        logits.sum().backward()
        assert model[0].weight.grad is not None
    finally:
        torch.distributed.destroy_process_group()
