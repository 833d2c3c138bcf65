"""Where a run took place, as far as others may know: versions, commit, device, command."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .private import has_path

PACKAGES = ("ccsam_hf", "torch", "timm", "transformers", "accelerate", "datasets", "huggingface_hub")


def versions() -> dict[str, str]:
    """Python's and the packages' versions; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device | str) -> str:
    """The accelerator's name, or the CPU with its number of threads."""
    chosen = torch.device(device)
    if chosen.type == "cuda":
        return torch.cuda.get_device_name(chosen)
    return f"CPU, {torch.get_num_threads()} threads" if chosen.type == "cpu" else chosen.type


def package_commit() -> str | None:
    """The commit of the package's code, marked where files differ from it; None outside a checkout."""
    where = Path(__file__).parent
    call = ["git", "-C", str(where), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        tracked = subprocess.run(
            ["git", "-C", str(where), "ls-files", "--error-unmatch", __file__], capture_output=True
        )
        done = subprocess.run(call, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if tracked.returncode == 0 and done.returncode == 0 else None


def portable_command(argv: Sequence[str]) -> str:
    """A command line to show, in which paths of this machine are reduced to their last part."""
    return shlex.join(_portable_word(word) for word in argv)


def _portable_word(word: str) -> str:
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if has_path(value) or Path(value).is_absolute() else word
