"""Small networks that contain what large ones do, and a slow reference for their per-group perturbations."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions with an identity shortcut, subsampled and zero-padded where the shape changes."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride, self.extra = stride, out - width

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        y += short
        return self.act(y)


class ResNet(nn.Module):
    """The CIFAR architecture with ``blocks`` blocks in each of three stages."""

    def __init__(self, blocks: int = 1, width: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        plan = [(width * 2 ** max(0, s - (b == 0)), width * 2**s, 2 if s and not b else 1)
                for s in range(3) for b in range(blocks)]  # fmt: skip
        self.blocks = nn.Sequential(*[Block(*arguments) for arguments in plan])
        self.fc = nn.Linear(width * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(F.relu(self.bn(self.conv(x)), inplace=True))
        return self.fc(y.mean((2, 3)))


class Oddities(nn.Module):
    """Depthwise, dilated, grouped, strided and one-dimensional layers with biases, and three more normalisations."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(3, 6, 3, 2, 2, dilation=2, groups=3)
        self.norm = nn.GroupNorm(2, 6)
        self.grouped = nn.Conv2d(6, 8, (3, 1), padding="same", groups=2)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.flat = nn.Conv1d(8, 6, 2, padding_mode="circular", padding=1)
        self.flat_norm = nn.BatchNorm1d(6)
        self.mix = nn.Linear(6, 7)
        self.rms = nn.RMSNorm(7)
        self.twice = nn.Linear(7, 7)
        self.norm1d = nn.BatchNorm1d(7, affine=False)
        self.fc = nn.Linear(7, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.grouped(self.norm(self.depthwise(x)))) * self.scale
        y = self.flat_norm(self.flat(y.flatten(2))).transpose(1, 2)
        y = self.twice(torch.tanh(self.twice(self.rms(self.mix(y)))))
        return self.fc(self.norm1d(y.mean(1)))


def batch(size: int = 9, classes: int = 5, side: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 3, side, side, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (size,), generator=generator)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 with every parameter away from its special initial value."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def clean_statistics(model: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and biased variance of what enters each BatchNorm layer in training mode; buffers are left alone."""
    found = {}

    def hook(name: str) -> Callable[..., None]:
        def remember(module: nn.Module, inputs: tuple[Tensor]) -> None:
            rows = inputs[0].detach().transpose(0, 1).flatten(1)
            found[name] = (rows.mean(1), rows.var(1, unbiased=False))

        return remember

    buffers = {n: b.clone() for n, b in model.named_buffers()}
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    handles = [m.register_forward_pre_hook(hook(n)) for n, m in layers]
    with torch.no_grad():
        model(x)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    for handle in handles:
        handle.remove()
    return found


class FixedStatistics(nn.Module):
    """BatchNorm with constants in the place of statistics, sharing the parameters of the layer it stands for."""

    def __init__(self, layer: nn.Module, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps
        self.mean, self.variance = mean, variance

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, False, 0.0, self.eps)


def with_fixed_statistics(model: nn.Module, statistics: dict[str, tuple[Tensor, Tensor]]) -> nn.Module:
    """The model, sharing all parameters, with the given statistics in its BatchNorm layers."""
    import copy

    shared = {id(p): p for p in [*model.parameters(), *model.buffers()]}
    twin = copy.deepcopy(model, dict(shared))
    for name, (mean, variance) in statistics.items():
        twin.set_submodule(name, FixedStatistics(model.get_submodule(name), mean, variance))
    return twin


def group_losses_at(
    model: nn.Module, x: Tensor, y: Tensor, index: Tensor, group: int, moved: dict[str, Tensor]
) -> Tensor:
    """Losses of one group's samples with some of the parameters replaced, amid the whole batch."""
    return F.cross_entropy(functional_call(model, moved, (x,)), y, reduction="none")[index == group]


def batch_norms_from(model: nn.Module, names: list[str]) -> list[str]:
    """BatchNorm layers that are, or come after, the first owner of the named parameters in order of registration."""
    modules = [name for name, _ in model.named_modules()]
    first = min(modules.index(name.rpartition(".")[0]) for name in names if "." in name)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    return [name for name in modules[first:] if isinstance(model.get_submodule(name), norms)]
