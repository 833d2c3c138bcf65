"""Spectral normalisation during training, folded into plain weights wherever a model is saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

SPECTRA = "spectral_norm.safetensors"
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
PART = ".parametrizations."


def normalizable(model: nn.Module, besides: nn.Module) -> list[nn.Module]:
    """Every convolution and linear layer but one."""
    return [m for m in model.modules() if isinstance(m, LAYERS) and m is not besides]


def normalize_spectra(layers: Iterable[nn.Module], seed: int) -> None:
    """W / σ(W) in place of W, σ by power iteration, one a training step (T. Miyato et al., ICLR 2018)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for layer in layers:
            spectral_norm(layer)


def normalized_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, m) for name, m in model.named_modules() if is_parametrized(m, "weight"))


def fold_spectra(model: nn.Module) -> None:
    """Make the weights as evaluation sees them plain parameters again."""
    for _, layer in list(normalized_layers(model)):
        mode = layer.training
        # In training mode reading the weight would iterate once more.
        layer.eval()
        remove_parametrizations(layer, "weight", leave_parametrized=True)
        layer.train(mode)


def folded_state(model: nn.Module) -> dict[str, Tensor]:
    """The state that the model would have after `fold_spectra`; the model stays as it is."""
    state = {name: value for name, value in model.state_dict().items() if PART not in name}
    for name, layer in normalized_layers(model):
        mode = layer.training
        layer.eval()
        weight = layer.weight
        assert isinstance(weight, Tensor)
        state[f"{name}.weight"] = weight.detach().clone()
        layer.train(mode)
    return state


def save_spectra(model: nn.Module, folder: Path) -> None:
    """Put weights and singular vectors of the training beside a checkpoint that holds the folded ones."""
    save_file({n: v.contiguous() for n, v in model.state_dict().items() if PART in n}, folder / SPECTRA)


def load_spectra(model: nn.Module, folder: Path) -> None:
    """Go on from what `save_spectra` wrote; ValueError where there is nothing."""
    if not (folder / SPECTRA).is_file():
        raise ValueError(
            f"{folder} has no {SPECTRA}: its run normalised no spectra. Resume without spectral_norm, or start anew."
        )
    model.load_state_dict(load_file(folder / SPECTRA), strict=False)
