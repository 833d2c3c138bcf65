"""The CIFAR ResNets against the numbers of their paper, and as timm models."""

import re

import pytest
import timm
import torch
from torch import nn

import ccsam_hf.models  # noqa: F401  registers the architectures
from ccsam_hf.models.cifar_resnet import shortcut

BLOCKS = {
    "cifar_resnet8": 1,
    "cifar_resnet20": 3,
    "cifar_resnet32": 5,
    "cifar_resnet44": 7,
    "cifar_resnet56": 9,
    "cifar_resnet110": 18,
}


def tiny(**kwargs):
    return timm.create_model("cifar_resnet20", **kwargs)


def expected_parameters(n: int, classes: int) -> int:
    """3x3 convolutions without bias, two numbers of batch normalisation a channel, one linear layer."""
    layers = (
        [(3, 16)] + [(16, 16)] * 2 * n + [(16, 32)] + [(32, 32)] * (2 * n - 1) + [(32, 64)] + [(64, 64)] * (2 * n - 1)
    )
    return sum(9 * a * b + 2 * b for a, b in layers) + 65 * classes


@pytest.mark.parametrize("name", BLOCKS)
def test_layers_and_parameters(name):
    model = timm.create_model(name)
    modules = list(model.modules())
    depth = int(re.search(r"\d+$", name)[0])
    assert sum(isinstance(m, nn.Conv2d) for m in modules) == depth - 1
    assert sum(isinstance(m, nn.Linear) for m in modules) == 1
    assert sum(p.numel() for p in model.parameters()) == expected_parameters(BLOCKS[name], 10)
    assert name in timm.list_models("cifar_*")


def test_resnet32_is_the_papers():
    assert sum(p.numel() for p in timm.create_model("cifar_resnet32").parameters()) == 464_154


@pytest.mark.parametrize(("channels", "stride", "size"), [(4, 1, 5), (4, 2, 6), (8, 2, 7), (7, 2, 8)])
def test_shortcut_subsamples_and_pads_with_zeros(channels, stride, size):
    x = torch.randn(2, 4, size, size)
    out = shortcut(x, channels, stride)
    side = -(-size // stride)
    before = (channels - 4) // 2
    expected = torch.zeros(2, channels, side, side)
    for c in range(4):
        for i in range(side):
            for j in range(side):
                expected[:, before + c, i, j] = x[:, c, stride * i, stride * j]
    assert torch.equal(out, expected)


def test_he_initialisation():
    torch.manual_seed(0)
    model = timm.create_model("cifar_resnet56", num_classes=1000)
    for conv in (model.layer2[3].conv1, model.layer3[5].conv2):
        fan_in = 9 * conv.in_channels
        assert conv.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
    assert model.fc.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert torch.count_nonzero(model.fc.bias) == 0


@pytest.mark.parametrize(("shape", "pooled"), [((2, 3, 32, 32), 8), ((2, 3, 33, 19), 9), ((2, 3, 8, 8), 2)])
def test_any_size(shape, pooled):
    model = tiny(num_classes=7).eval()
    features = model.forward_features(torch.randn(shape))
    assert features.shape[:3] == (2, 64, pooled)
    assert model.forward_head(features).shape == (2, 7)


def test_features_head_and_pre_logits_make_up_the_forward_pass():
    model = tiny().eval()
    x = torch.randn(2, 3, 16, 16)
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    assert torch.allclose(pooled, features.mean((2, 3)))
    assert torch.equal(model(x), model.get_classifier()(pooled))


def test_head_can_be_replaced_removed_and_pooled_otherwise():
    model = tiny(in_chans=1).eval()
    x = torch.randn(2, 1, 8, 8)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    assert model.num_classes == 3
    assert not model.fc.training
    model.reset_classifier(4, global_pool="catavgmax")
    assert model.fc.in_features == model.head_hidden_size == 128
    assert model(x).shape == (2, 4)
    model.reset_classifier(0)
    assert model(x).shape == (2, 128)
    assert tiny(num_classes=0)(torch.randn(2, 3, 8, 8)).shape == (2, 64)


def test_dropout_acts_in_training_only():
    model = tiny(drop_rate=0.5).eval()
    features = torch.ones(2, 64, 2, 2)
    assert torch.equal(model.forward_head(features, pre_logits=True), torch.ones(2, 64))
    assert set(model.train().forward_head(features, pre_logits=True).unique().tolist()) == {0.0, 2.0}


def test_stages_as_features():
    backbone = tiny(features_only=True).eval()
    model = tiny().eval()
    model.load_state_dict({**model.state_dict(), **backbone.state_dict()})
    x = torch.randn(1, 3, 16, 16)
    maps = backbone(x)
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 16, 16), (32, 8, 8), (64, 4, 4)]
    assert backbone.feature_info.channels() == [16, 32, 64]
    assert backbone.feature_info.reduction() == [1, 2, 4]
    last, stages = model.forward_intermediates(x)
    assert all(torch.equal(a, b) for a, b in zip(maps, stages, strict=True))
    assert torch.equal(last, model.forward_features(x))
    (only,) = model.forward_intermediates(x, indices=[1], stop_early=True, intermediates_only=True)
    assert torch.equal(only, maps[1])
    with pytest.raises(ValueError, match="NCHW"):
        model.forward_intermediates(x, output_fmt="NLC")


def test_gradient_checkpointing_gives_equal_gradients():
    model = tiny().eval()
    x = torch.randn(2, 3, 8, 8)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(("coarse", "groups"), [(True, 3), (False, 9)])
def test_groups_cover_the_backbone(coarse, groups):
    model = tiny()
    patterns = model.group_matcher(coarse)
    found = set()
    for name, _ in model.named_parameters():
        if not name.startswith("fc."):
            match = re.match(patterns["blocks"], name)
            assert match or re.match(patterns["stem"], name), name
            found |= {match.groups()} if match else set()
    assert len(found) == groups
