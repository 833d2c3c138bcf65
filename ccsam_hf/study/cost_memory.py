"""The memory that a step needs at most, each method in a process of its own."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from .cost_setting import Setting
from .cost_steps import method_steps


def peak_memory(setting: Setting, names: Sequence[str], device: torch.device, bf16: bool) -> dict[str, float]:
    """MiB that a step of each method needs at most, each measured in a process of its own."""
    found = {}
    for name in names:
        command = [sys.executable, "-m", "ccsam_hf.study.step_cost", "--memory_of", name, "--model", setting.model]
        command += ["--image_size", str(setting.image_size), "--batch_size", str(setting.batch_size)]
        command += ["--num_classes", str(setting.num_classes), "--device", str(device)] + ["--bf16"] * bf16
        output = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
        with suppress(ValueError, IndexError):
            found[name] = float(output.split()[-1])
    return found


def measure_memory(setting: Setting, name: str, device: torch.device, bf16: bool) -> float:
    """Most MiB in use during a step above what the imports take: model, optimizer, activations, the method's own."""
    before = _resident()
    with tempfile.TemporaryDirectory() as folder:
        step = method_steps(setting, [name], device, bf16, folder)[name]
        step()
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device) / 2**20
        # ru_maxrss would still hold the peak of the imports: watch the resident size of the step instead.
        peak, done = [before], threading.Event()

        def watch() -> None:
            while not done.wait(0.001):
                peak.append(max(peak.pop(), _resident()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        step()
        step()
        done.set()
        watcher.join()
    return peak[0] - before


def _resident() -> float:
    """Resident memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20
