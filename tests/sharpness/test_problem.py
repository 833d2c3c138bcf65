"""Models as objectives: derivatives, scopes, BatchNorm, and that they are given back bit for bit."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ccsam_hf.sharpness import AnalysisSettings, Sizes
from ccsam_hf.sharpness.noise import measure_noise
from ccsam_hf.sharpness.objective import unflatten, unit_directions
from ccsam_hf.sharpness.problem import (
    AnalysedNetwork,
    class_gradient_norms,
    cross_entropy,
    estimated_statistics,
    linear_class_gradient_norms,
    logits_of,
    outer_blocks,
    scope_names,
    untouched,
    wrong_probability,
)


@pytest.fixture
def groups():
    return {"all": torch.full((12,), 1 / 12), "few": (torch.arange(12) % 3 == 2) / 4.0}


def moved_model(net, names, theta):
    """A copy of the network whose parameters are overwritten in place: the obvious way to perturb it."""
    copied = copy.deepcopy(net).eval().requires_grad_()
    own = dict(copied.named_parameters())
    with torch.no_grad():
        for name, piece in unflatten(theta, {name: own[name].shape for name in names}).items():
            own[name].copy_(piece)
    return copied


@pytest.mark.parametrize("scope", ["classifier", "last:1", "all"])
def test_objective_is_the_loss_of_the_overwritten_model(net, images, groups, scope):
    pixels, labels = images
    with untouched(net):
        objective = AnalysedNetwork(net, pixels, labels, groups, batch_size=5).objective(scope)
        theta = objective.start + 0.3 * unit_directions(1, objective.start, 0)[0]
        reference = moved_model(net, list(objective.shapes), theta)
        expected = F.cross_entropy(reference(pixels), labels, reduction="none")
        torch.testing.assert_close(objective.losses(theta), expected.detach())
        (few,) = torch.autograd.grad(expected[labels == 2].mean(), dict(reference.named_parameters())["head.weight"])
        gradient = unflatten(objective.gradient(groups["few"].double(), theta), objective.shapes)
        torch.testing.assert_close(gradient["head.weight"], few, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("scope", ["classifier", "all"])
def test_hessian_vector_products_against_the_explicit_hessian(net, images, groups, scope):
    pixels, labels = images
    with untouched(net):
        network = AnalysedNetwork(net, pixels, labels, groups, batch_size=5)
        objective = network.objective(scope)
        weights = groups["few"].double()

        def loss(theta):
            return weights @ objective.at(theta)(torch.arange(12))

        hessian = torch.autograd.functional.hessian(loss, objective.start)
        for vector in unit_directions(3, objective.start, 1):
            torch.testing.assert_close(
                objective.hessian_vector(weights, vector), hessian @ vector, rtol=1e-8, atol=1e-10
            )


def test_recalibration_uses_the_statistics_of_the_moved_network(net, images, groups):
    """One batch: the re-estimated evaluation loss is the loss with batch statistics (unbiased variance)."""
    pixels, labels = images
    with untouched(net):
        objective = AnalysedNetwork(net, pixels, labels, groups, batch_size=12, recalibrate=True).objective("all")
        theta = objective.start + 0.3 * unit_directions(1, objective.start, 0)[0]
        reference = moved_model(net, list(objective.shapes), theta)
        hidden = reference.stem(pixels)
        reference.norm.running_mean = hidden.mean((0, 2, 3)).detach()
        reference.norm.running_var = hidden.var((0, 2, 3)).detach()
        expected = F.cross_entropy(reference(pixels), labels, reduction="none")
        torch.testing.assert_close(objective.losses(theta), expected.detach())
        frozen = AnalysedNetwork(net, pixels, labels, groups).objective("all").losses(theta)
        assert not torch.allclose(frozen, expected)


def test_statistics_are_plain_means_over_the_batches(net, images):
    pixels, _ = images
    with untouched(net):
        found = estimated_statistics(net, {}, list(pixels.split(4)))
        means = torch.stack([net.stem(part).mean((0, 2, 3)) for part in pixels.split(4)])
    torch.testing.assert_close(found["norm.running_mean"], means.mean(0))
    assert found["norm.num_batches_tracked"] == 3


@pytest.mark.parametrize("fails", [False, True])
def test_model_is_given_back_bit_for_bit(net, fails):
    net.norm.eval()  # a mixed state, which a plain model.train() would not restore
    net.stem.weight.requires_grad_(False)
    net.norm.momentum = 0.3
    before = copy.deepcopy(net.state_dict())
    modes = {name: module.training for name, module in net.named_modules()}
    with pytest.raises(RuntimeError) if fails else torch.no_grad(), untouched(net):
        assert not any(module.training for module in net.modules())
        with torch.no_grad():
            net.head.weight.add_(1)
            net.norm.running_mean.zero_()
            net.norm.num_batches_tracked.add_(1)
        net.norm.momentum = None
        if fails:
            raise RuntimeError
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert modes == {name: module.training for name, module in net.named_modules()}
    assert net.norm.momentum == 0.3
    assert [p.requires_grad for p in net.parameters()] == [False] + [True] * (len(list(net.parameters())) - 1)


def test_scopes_contain_each_other(net):
    everything = scope_names(net, "all")
    tail = scope_names(net, "last:1", "head")
    head = scope_names(net, "classifier", "head")
    assert head == ["head.weight", "head.bias"]
    assert tail == ["blocks.1.0.weight", "blocks.1.0.bias", *head]
    assert everything[-4:] == tail
    assert scope_names(net, "last:2", "head") == ["blocks.0.0.weight", "blocks.0.0.bias", *tail]
    assert scope_names(net, "names:blocks.1.*,head.*") == tail
    assert scope_names(net, "norm_affine") == ["norm.weight", "norm.bias"]


def test_frozen_parameters_are_analysed_too_and_stay_frozen(net):
    net.requires_grad_(False)
    net.head.requires_grad_(True)
    assert scope_names(net, "all") == [name for name, _ in net.named_parameters()]
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("name", "stage", "head"),
    [
        ("resnet18", "layer4", "fc"),
        ("vit_tiny_patch16_224", "blocks.11", "head"),
        ("convnext_atto", "stages.3", "head.fc"),
        ("swin_tiny_patch4_window7_224", "layers.3", "head.fc"),
        ("efficientnet_b0", "blocks.6", "classifier"),
        ("cifar_resnet20", "layer3", "fc"),
    ],
)
def test_last_stage_of_known_networks(name, stage, head):
    """The last of the outermost blocks with all that follows it."""
    import timm

    import ccsam_hf.models  # noqa: F401  registers the CIFAR networks

    with torch.device("meta"):
        model = timm.create_model(name)
    names = [name for name, _ in model.named_parameters()]
    first = next(place for place, name in enumerate(names) if name.startswith(f"{stage}."))
    assert scope_names(model, "last:1", head) == names[first:]
    assert outer_blocks(model)[-1] == stage


def test_networks_without_blocks_need_a_name():
    with pytest.raises(ValueError, match=r"name the parameters instead \(names:PATTERN\)"):
        outer_blocks(nn.Linear(3, 3))


def test_transformers_models_work_with_every_scope():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, image_size=8)
    config.patch_size, config.num_labels = 4, 3
    torch.manual_seed(0)
    model = ViTForImageClassification(config).double()
    pixels, labels = torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6) % 3
    expected = F.cross_entropy(model.eval()(pixels).logits, labels, reduction="none").detach()
    with untouched(model):
        network = AnalysedNetwork(model, pixels, labels, {"all": torch.full((6,), 1 / 6)})
        for scope in ("classifier", "last:1", "all"):
            objective = network.objective(scope)
            torch.testing.assert_close(objective.losses(objective.start), expected)
        vector = unit_directions(1, objective.start, 0)[0]
        step = 1e-5
        gradients = [objective.gradient(objective.groups["all"], objective.start + s * step * vector) for s in (1, -1)]
        finite = (gradients[0] - gradients[1]) / (2 * step)
        product = objective.hessian_vector(objective.groups["all"], vector)
        torch.testing.assert_close(product, finite, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss", [cross_entropy, wrong_probability])
def test_linear_class_gradients_equal_autograd(net, images, groups, loss):
    pixels, labels = images
    with untouched(net):
        network = AnalysedNetwork(net, pixels, labels, groups)
        objective = network.objective("classifier", loss)
        expected = class_gradient_norms(objective, labels, 4)
        layer = network.linear
        found = linear_class_gradient_norms(network.features, labels, layer.weight, layer.bias, loss, 4)
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_a_replaced_classifier_is_moved_through_its_own_function():
    from ccsam_hf.models import create_model, replace_classifier

    torch.manual_seed(0)
    model = create_model("cifar_resnet20", 3, input_size=8)
    replace_classifier(model, "cosine")
    pixels, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    settings, groups = AnalysisSettings(), {"all": torch.full((6,), 1 / 6)}
    with untouched(model):
        network = AnalysedNetwork(model, pixels, labels, groups)
        assert network.linear is None
        fast, slow = network.objective("classifier"), network.objective("last:1")
        torch.testing.assert_close(fast.losses(fast.start), slow.losses(slow.start))
        curves = measure_noise(network, "classifier", "random", settings, Sizes(levels=2, seeds=1))["losses"]
        unit = unit_directions(1, fast.start, 0)[0]
        expected = fast.losses(fast.start + fast.start.norm() * unit).mean()
        torch.testing.assert_close(curves["global"]["all"][1, 0].float(), expected)


def test_wrong_probability_keeps_its_precision_near_zero():
    logits = torch.tensor([[40.0, 0.0], [0.0, 0.0]])
    found = wrong_probability(logits.double(), torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([1 / (1 + 2.718281828459045**40), 0.5], dtype=torch.float64))


def test_what_cannot_be_analysed_is_refused(net, images, groups):
    pixels, labels = images
    with pytest.raises(ValueError, match=r"model\.float"):
        AnalysedNetwork(net.half(), pixels, labels, groups)
    with pytest.raises(ValueError, match="--recalibrate_bn has no effect"):
        AnalysedNetwork(nn.Linear(3, 3), pixels, labels, groups, recalibrate=True)

    class Scaled(type(net)):
        def forward(self, pixel_values):
            return 2 * super().forward(pixel_values)

    with untouched(scaled := Scaled().double()):
        network = AnalysedNetwork(scaled, pixels, labels, groups)
        assert network.objective("names:blocks.*").losses(network.objective("names:blocks.*").start).isfinite().all()
        with pytest.raises(ValueError, match=r"leave classifier and last:N out of --scopes"):
            network.objective("classifier")
    with pytest.raises(ValueError, match="no logits"):
        logits_of({"logits": torch.zeros(2, 3, 4)})
