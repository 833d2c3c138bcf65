"""A loss that is an exact quadratic, and a small network, both in float64."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ccsam_hf.sharpness import Checkpoint
from ccsam_hf.sharpness.objective import Objective


def quadratic_objective(hessians: Tensor, slopes: Tensor, start: Tensor, groups: dict[str, Tensor]) -> Objective:
    """l_i(θ) = ½ θᵀH_iθ + s_iᵀθ for H [N, k, k] and s [N, k]."""

    def at(theta: Tensor):
        return lambda index: 0.5 * torch.einsum("a,nab,b->n", theta, hessians[index], theta) + slopes[index] @ theta

    return Objective(at, start, groups, batch_size=2, shapes={"w": start.shape})


class Quadratic:
    """Five quadratic samples in six dimensions, in the groups "all" and "few"."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        factors = torch.randn(5, 6, 6, generator=generator, dtype=torch.float64)
        self.hessians = factors + factors.transpose(1, 2)
        self.slopes = torch.randn(5, 6, generator=generator, dtype=torch.float64)
        self.start = torch.randn(6, generator=generator, dtype=torch.float64)
        few = torch.tensor([0.0, 0.0, 0.25, 0.0, 0.75], dtype=torch.float64)
        self.groups = {"all": torch.full((5,), 0.2, dtype=torch.float64), "few": few}
        self.objective = quadratic_objective(self.hessians, self.slopes, self.start, self.groups)

    def hessian(self, name: str) -> Tensor:
        return torch.einsum("n,nab->ab", self.groups[name], self.hessians)

    def gradient(self, name: str) -> Tensor:
        return self.hessian(name) @ self.start + self.groups[name] @ self.slopes

    def rise(self, name: str, step: Tensor) -> float:
        return float(self.gradient(name) @ step + 0.5 * step @ self.hessian(name) @ step)


@pytest.fixture
def quadratic() -> Quadratic:
    return Quadratic()


class TinyNet(nn.Module):
    """Convolution, BatchNorm, two blocks and a linear head: every kind of parameter the analysis meets."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Sequential(nn.Conv2d(4, 4, 1)))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, pixel_values: Tensor) -> Tensor:
        hidden = torch.tanh(self.norm(self.stem(pixel_values)))
        return self.head(self.dropout(torch.tanh(self.blocks(hidden)).mean((2, 3))))


@pytest.fixture
def net() -> TinyNet:
    torch.manual_seed(0)
    model = TinyNet().double()
    model.train()
    model(torch.randn(20, 1, 6, 6, dtype=torch.float64))  # running statistics away from their start
    return model


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 1, 6, 6, generator=generator, dtype=torch.float64), torch.arange(12) % 3


@pytest.fixture
def checkpoint(net, images) -> Checkpoint:
    """The small network, and three earlier checkpoints of its run."""
    pixels, _ = images
    earlier = []
    for step in (1, 2, 3):
        model = copy.deepcopy(net)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 0.1 * step).add_(0.01 * step**2)
        earlier.append((step, lambda model=model: model))
    return Checkpoint("net", lambda: net, lambda index: pixels[index], earlier)
