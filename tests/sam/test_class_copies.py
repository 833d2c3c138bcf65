import copy
from fnmatch import fnmatch

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from toy_nets import (
    Oddities,
    ResNet,
    batch,
    batch_norms_from,
    clean_statistics,
    group_losses_at,
    randomised,
    with_fixed_statistics,
)

from ccsam_hf.sam.class_copies import ClassCopies
from ccsam_hf.sam.closed_form import shifted_logits, unit_logit_shift
from ccsam_hf.sam.directions import gradient_step
from ccsam_hf.sam.layout import GroupLayout
from ccsam_hf.sam.partition import Groups, class_groups

CLASSES = 5


def vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=CLASSES, img_size=8, patch_size=4, depth=2, embed_dim=12, num_heads=2,
        init_values=0.3,
    )  # fmt: skip


def resnet50_like() -> nn.Module:
    from timm.models.resnet import Bottleneck
    from timm.models.resnet import ResNet as TimmResNet

    return TimmResNet(Bottleneck, (1, 1, 1, 1), num_classes=CLASSES, channels=(4, 4, 8, 8), stem_width=4)


NETS = {"resnet": ResNet, "oddities": Oddities, "vit": vit, "timm resnet": resnet50_like}


def groups_of(y: Tensor, classes: int = CLASSES) -> Groups:
    return class_groups(y, torch.arange(classes) * 7 + 1)


def copies_step(model, parameters, x, y, groups, lengths, max_copies=None, flat_weight=1.0):
    """Losses in the batch's own order, ‖g_c‖ [G], and the gradients of all parameters."""
    layout = GroupLayout.of(groups, max_copies)
    sorted_batch = layout.sorted_batch({"x": x, "y": y})

    def losses() -> Tensor:
        return F.cross_entropy(model(sorted_batch["x"]), sorted_batch["y"], reduction="none")

    copies = ClassCopies(model, parameters, layout, max_copies)
    with copies.clean():
        clean = losses()
    gradients = copies.gradients(clean, retain_graph=flat_weight < 1)
    norms = gradients.total_norms()
    with copies.perturbed(gradient_step(gradients, lengths)):
        perturbed = losses()
    total = flat_weight * perturbed.mean()
    if flat_weight < 1:
        total = total + (1 - flat_weight) * clean.mean()
    grads = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    unsorted = torch.empty_like(perturbed).index_copy(0, layout.order, perturbed)
    return unsorted, norms, grads


def reference_step(model, parameters, x, y, groups, lengths):
    """One group after the other at its own W + ε_c; from the first perturbed layer on, the clean pass's statistics."""
    statistics = clean_statistics(model, x)
    fixed = {name: statistics[name] for name in batch_norms_from(model, list(parameters))}
    twin = with_fixed_statistics(model, fixed)
    losses = torch.zeros(len(y), dtype=x.dtype)
    norms = torch.zeros(groups.number, dtype=x.dtype)
    for g in range(groups.number):
        mine = groups.index == g
        if not mine.any():
            continue
        clean = group_losses_at(twin, x, y, groups.index, g, {}).mean()
        grads = torch.autograd.grad(clean, list(parameters.values()))
        norms[g] = torch.cat([v.flatten() for v in grads]).norm()
        moved = {n: p + lengths[g] * v / norms[g] for (n, p), v in zip(parameters.items(), grads, strict=True)}
        losses = losses.index_put((mine.nonzero().squeeze(1),), group_losses_at(twin, x, y, groups.index, g, moved))
    return losses, norms, torch.autograd.grad(losses.mean(), list(model.parameters()), allow_unused=True)


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def chosen(model: nn.Module, scope: str) -> dict[str, nn.Parameter]:
    patterns = {
        "all": ["*"],
        "norms": ["*norm*", "*bn*"],
        "no norms": ["*conv*", "*fc*", "*mix*", "*qkv*", "*mlp*"],
        "second half": ["*blocks.1.*", "*blocks.2.*", "*twice*", "layer3.*", "layer4.*"],
        "some biases": ["*fc1.bias", "*bn1.bias", "mix.bias"],
    }[scope]
    return {n: p for n, p in model.named_parameters() if any(fnmatch(n, pattern) for pattern in patterns)}


LENGTHS = torch.tensor([0.3, 0.1, 0.0, 0.5, 0.2], dtype=torch.float64)


def case(net: str, size: int = 9) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    x, y = batch(size, side=32 if net == "timm resnet" else 8)
    return randomised(NETS[net]()), x, y


@pytest.mark.parametrize("max_copies", [None, 2])
@pytest.mark.parametrize("scope", ["all", "norms", "no norms", "second half", "some biases"])
@pytest.mark.parametrize("net", NETS)
def test_equals_loop_over_groups(net: str, scope: str, max_copies: int | None) -> None:
    model, x, y = case(net)
    parameters = chosen(model, scope)
    expected = reference_step(model, parameters, x, y, groups_of(y), LENGTHS)
    got = copies_step(model, parameters, x, y, groups_of(y), LENGTHS, max_copies)
    assert_same(got[:2], expected[:2])
    assert_same(got[2], expected[2])


@pytest.mark.parametrize("labels", [[3], [2, 2, 2, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0, 1, 4, 4, 4]])
def test_any_division_of_the_batch(labels: list[int]) -> None:
    model, x, _ = case("vit", len(labels))
    y, parameters = torch.tensor(labels), dict(model.named_parameters())
    expected = reference_step(model, parameters, x, y, groups_of(y), LENGTHS)
    got = copies_step(model, parameters, x, y, groups_of(y), LENGTHS)
    assert_same(got[:2], expected[:2])
    assert_same(got[2], expected[2])


def test_evaluated_batch_norm_uses_its_running_statistics() -> None:
    model, x, y = case("resnet")
    model(x)
    model.eval()
    parameters = dict(model.named_parameters())
    running = {n: (m.running_mean, m.running_var) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    twin = with_fixed_statistics(model, running)
    got = copies_step(model, parameters, x, y, groups_of(y), LENGTHS)
    expected = reference_step(twin, parameters, x, y, groups_of(y), LENGTHS)
    assert_same(got[:2], expected[:2])


def test_clean_losses_keep_their_ordinary_gradient() -> None:
    model, x, y = case("resnet")
    parameters = dict(model.named_parameters())
    plain = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    perturbed = reference_step(model, parameters, x, y, groups_of(y), LENGTHS)[2]
    got = copies_step(model, parameters, x, y, groups_of(y), LENGTHS, flat_weight=0.3)[2]
    assert_same(got, [0.7 * a + 0.3 * b for a, b in zip(plain, perturbed, strict=True)])


def test_classifier_scope_is_the_closed_form() -> None:
    model, x, y = case("resnet", 12)
    groups, lengths = groups_of(y), LENGTHS
    got = copies_step(model, {n: p for n, p in model.named_parameters() if n.startswith("fc.")}, x, y, groups, lengths)
    captured = []
    model.fc.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0]))
    logits = model(x)
    delta = torch.softmax(logits.detach(), 1) - F.one_hot(y, CLASSES)
    shift, norms = unit_logit_shift(captured[0], delta, groups, True)
    losses = F.cross_entropy(shifted_logits(logits, shift, lengths, groups), y, reduction="none")
    assert_same(got[:2], [losses, norms])
    assert_same(got[2], torch.autograd.grad(losses.mean(), list(model.parameters())))


def test_one_group_is_a_sam_step_of_a_net_without_batch_norm() -> None:
    model, x, y = case("vit")
    parameters = dict(model.named_parameters())
    groups = Groups(torch.zeros_like(y), torch.tensor([len(y)]), torch.tensor([True]))
    got = copies_step(model, parameters, x, y, groups, torch.tensor([0.05], dtype=torch.float64))
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for p, g in zip(moved.parameters(), gradients, strict=True):
            p.add_(0.05 * g / norm)
    assert_same(got[2], torch.autograd.grad(F.cross_entropy(moved(x), y), list(moved.parameters())))


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.fc = nn.Linear(192, 16), nn.Linear(16, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(self.stem(x.flatten(1)), 0.5, self.training)
        return self.fc(F.dropout(self.body(y), 0.5, self.training))


@pytest.mark.parametrize("scope", ["stem", "fc"])
def test_dropout_masks_are_equal_in_both_passes(scope: str) -> None:
    x, y = batch()
    model = WithDropout().double()
    layout = GroupLayout.of(groups_of(y))
    copies = ClassCopies(model, {n: p for n, p in model.named_parameters() if n.startswith(scope)}, layout)
    with copies.clean():
        clean = F.cross_entropy(model(x), y, reduction="none")
    after = torch.get_rng_state()
    torch.rand(3)
    gradients = copies.gradients(clean)
    before = torch.get_rng_state()
    with copies.perturbed(gradient_step(gradients, torch.zeros(CLASSES))):
        perturbed = F.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(perturbed, clean, rtol=0, atol=1e-14)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(before, after)


def test_buffers_move_as_in_plain_training_and_gradients_only_in_backward() -> None:
    model, x, y = case("resnet")
    plain = copy.deepcopy(model)
    plain(x)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    copies_step(model, dict(model.named_parameters()), x, y, groups_of(y), LENGTHS)
    for (name, buffer), expected in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=0, atol=1e-14, msg=name)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())


class CountConvolutions(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("scope", "repeated"), [("fc.", 0), ("blocks.2.", 2), ("conv.", 7)])
def test_only_the_tail_is_repeated(scope: str, repeated: int) -> None:
    model, x, y = case("resnet", 3)
    y[:] = 0
    copies = ClassCopies(
        model, {n: p for n, p in model.named_parameters() if n.startswith(scope)}, GroupLayout.of(groups_of(y))
    )
    with copies.clean():
        losses = F.cross_entropy(model(x), y, reduction="none")
    gradients = copies.gradients(losses)
    with CountConvolutions() as count, copies.perturbed(gradient_step(gradients, LENGTHS)):
        model(x)
    assert count.number == repeated


class CountProducts(TorchDispatchMode):
    """Multiplications in convolutions and matrix products (torch's own counter is wrong for grouped convolutions)."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        aten = torch.ops.aten
        if func is aten.convolution.default:
            self.number += result.numel() * args[1][0].numel()
        elif func is aten.convolution_backward.default:
            self.number += args[0].numel() * args[2][0].numel() * sum(args[-1][:2])
        elif func in (aten.mm.default, aten.bmm.default):
            self.number += result.numel() * args[0].shape[-1]
        elif func in (aten.addmm.default, aten.baddbmm.default):
            self.number += result.numel() * args[1].shape[-1]
        return result


def products(step) -> int:
    with CountProducts() as count:
        step()
    return count.number


@pytest.mark.parametrize("net", ["resnet", "vit", "timm resnet"])
def test_products_are_those_of_two_passes_for_any_number_of_classes(net: str) -> None:
    model, x, y = case(net, 10)
    parameters = dict(model.named_parameters())
    plain = products(lambda: F.cross_entropy(model(x), y).backward())
    for labels in ([0] * 10, [0, 1] * 5, [0, 1, 2, 3, 4] * 2, list(range(10))):
        number = max(labels) + 1
        groups = groups_of(torch.tensor(labels), number)
        lengths = torch.full((number,), 0.1, dtype=x.dtype)
        own = torch.tensor(labels) % CLASSES

        def step(max_copies=None, own=own, groups=groups, lengths=lengths) -> None:
            copies_step(model, parameters, x, own, groups, lengths, max_copies)

        assert products(step) == 2 * plain
        assert products(lambda step=step: step(2)) <= 3 * plain


class WritesIntoItsInput(nn.Module):
    """A head whose result is overwritten after the first perturbed layer has run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Linear(192, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        extra = x.flatten(1)[:, :CLASSES] * 3
        y = self.fc(torch.tanh(self.stem(x.flatten(1))))
        extra.mul_(2)
        return y + extra


def test_an_overwritten_head_is_computed_again() -> None:
    x, y = batch()
    model = randomised(WritesIntoItsInput())
    parameters = dict(model.fc.named_parameters(prefix="fc"))
    got = copies_step(model, parameters, x, y, groups_of(y), LENGTHS)
    expected = reference_step(model, parameters, x, y, groups_of(y), LENGTHS)
    assert_same(got[:2], expected[:2])
    assert_same(got[2], expected[2])


class RandomPath(WithDropout):
    def forward(self, x: Tensor) -> Tensor:
        self.second = not getattr(self, "second", True)
        y = self.stem(x.flatten(1))
        return self.fc(self.body(y) if self.second else y)


class Reshaped(WithDropout):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stem(x.flatten(1)) @ self.body.weight.T)


def run_both(model: nn.Module, scope: str, autocast: bool = False) -> None:
    x, y = batch()
    model, x = (model.float(), x.float()) if autocast else (model.double(), x)
    parameters = {n: p for n, p in model.named_parameters() if n.startswith(scope)}
    copies = ClassCopies(model, parameters, GroupLayout.of(groups_of(y)))
    with copies.clean(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = F.cross_entropy(model(x), y, reduction="none")
    gradients = copies.gradients(losses)
    with copies.perturbed(gradient_step(gradients, LENGTHS)):
        model(x)


def test_refuses_a_function_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"'body.weight'.*not known to treat every sample apart.*'batch'"):
        run_both(Reshaped(), "body")


def test_refuses_inputs_whose_first_dimension_is_not_the_batch() -> None:
    class TokensFirst(WithDropout):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x.flatten(1))
            return self.fc(self.body(torch.stack([y, y])).sum(0))

    with pytest.raises(ValueError, match=r"'body.weight'.*\(2, 9, 16\) does not begin with the 9 samples"):
        run_both(TokensFirst(), "body")


def test_refuses_a_path_chosen_at_random() -> None:
    with pytest.raises(RuntimeError, match="must compute the same functions in both"):
        run_both(RandomPath(), "fc")


def test_refuses_parameters_that_the_pass_did_not_use() -> None:
    model = WithDropout()
    model.unused = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"did not use 2 perturbed parameters, the first of them 'unused.bias'"):
        run_both(model, "")


def test_refuses_half_precision() -> None:
    with pytest.raises(ValueError, match="bf16=False and fp16=False"):
        run_both(WithDropout(), "body", autocast=True)


def test_refuses_synchronised_batch_norm() -> None:
    with pytest.raises(ValueError, match=r"'1' is a SyncBatchNorm"):
        run_both(nn.Sequential(nn.Flatten(), nn.SyncBatchNorm(192), nn.Linear(192, 5)), "2")


def test_refuses_a_pass_without_gradients() -> None:
    with pytest.raises(ValueError, match=r"outside torch\.no_grad"), torch.no_grad():
        run_both(WithDropout(), "body")


def test_groups_that_are_not_perturbed_keep_their_weights() -> None:
    model, x, y = case("vit")
    parameters = dict(model.named_parameters())
    active = torch.tensor([True, False, True, False, True])
    groups = Groups(y, torch.ones(CLASSES, dtype=torch.long), active)
    expected = reference_step(model, parameters, x, y, groups, LENGTHS * active)
    got = copies_step(model, parameters, x, y, groups, LENGTHS)
    assert_same(got[:2], expected[:2])
    assert_same(got[2], expected[2])


def test_refuses_reduced_losses() -> None:
    x, y = batch()
    model = WithDropout().double()
    copies = ClassCopies(model, dict(model.named_parameters()), GroupLayout.of(groups_of(y)))
    with copies.clean():
        loss = F.cross_entropy(model(x), y)
    with pytest.raises(ValueError, match="9 per-sample losses"):
        copies.gradients(loss)


def test_a_pass_that_raises_leaves_everything_as_it_was() -> None:
    model, x, y = case("resnet")
    copies = ClassCopies(model, dict(model.named_parameters()), GroupLayout.of(groups_of(y)))
    with copies.clean():
        losses = F.cross_entropy(model(x), y, reduction="none")
    before = {n: v.clone() for n, v in model.state_dict().items()}
    gradients = copies.gradients(losses)

    def broken_pass() -> None:
        with copies.perturbed(gradient_step(gradients, LENGTHS)):
            model(x)
            raise KeyError

    with pytest.raises(KeyError):
        broken_pass()
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_tiny_gradients_keep_their_direction_in_float32() -> None:
    x, y = batch()
    model = WithDropout().eval()
    parameters = dict(model.named_parameters())
    layout = GroupLayout.of(groups_of(y))
    copies = ClassCopies(model, parameters, layout)
    with copies.clean():
        losses = F.cross_entropy(model(x.float()), y, reduction="none") * 1e-22
    gradients = copies.gradients(losses)
    step = gradient_step(gradients, LENGTHS.float())
    for k, segment in enumerate(layout.segments):
        moved = [step.moved(n, k, torch.zeros_like(p)).flatten(1) for n, p in parameters.items()]
        expected = LENGTHS.float()[layout.present[segment.groups]]
        torch.testing.assert_close(torch.cat(moved, 1).norm(dim=1), expected, rtol=1e-4, atol=0)
