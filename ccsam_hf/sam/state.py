"""What a second pass through a network must find as the first one did, and leave as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RandomState:
    """The states of torch's generators on the CPU and on the accelerators in use."""

    cpu: Tensor
    devices: dict[int, Tensor]
    device_type: str

    @classmethod
    def capture(cls, device: torch.device | None = None) -> RandomState:
        """Now; ``device`` names the accelerator whose generator a forward pass draws from."""
        if device is None or device.type == "cpu":
            return cls(torch.get_rng_state(), {}, "cpu")
        module = torch.get_device_module(device)
        index = module.current_device() if device.index is None else device.index
        return cls(torch.get_rng_state(), {index: module.get_rng_state(index)}, device.type)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        for index, state in self.devices.items():
            torch.get_device_module(self.device_type).set_rng_state(state, index)


@contextmanager
def same_randomness(state: RandomState, device: torch.device | None = None) -> Iterator[None]:
    """Draw inside as was drawn after ``state``, and go on afterwards as if nothing had been drawn."""
    outside = RandomState.capture(device)
    state.restore()
    try:
        yield
    finally:
        outside.restore()


@contextmanager
def frozen_buffers(model: nn.Module) -> Iterator[None]:
    """Whatever happens inside, the model's buffers (BatchNorm's running statistics) come out bit for bit as they were.

    A momentum of 0 would not do: it counts batches all the same, and 0 · inf is NaN.
    """
    buffers = list(model.buffers())
    saved = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    finally:
        # Through .data: a graph that waits for its backward may hold these buffers, whose values are as it saw them.
        for buffer, value in zip(buffers, saved, strict=True):
            buffer.data.copy_(value)
