"""What a step of each method costs beside plain training, timed in turns within one run."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .cost_classifier import classifier_steps
from .cost_memory import measure_memory, peak_memory
from .cost_setting import LOOP, METHODS, Setting
from .cost_steps import method_steps


def timed_in_turns(steps: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each step, measured in turns so that a change of the machine's speed meets them all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in tqdm(range(-1, rounds), desc="rounds", leave=False):
        for name, step in steps.items():
            _wait(device)
            start = time.perf_counter()
            step()
            _wait(device)
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(times: dict[str, list[float]], memory: dict[str, float]) -> str:
    """ms per step (median), ratio to plain (median of the rounds' ratios) and peak memory, as Markdown."""
    lines = ["| step | ms | ratio to plain | peak memory, MiB | ratio |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times["plain"], strict=True))
        peak = memory.get(name)
        cells = ["-", "-"] if peak is None else [f"{peak:.0f}", f"{peak / memory['plain']:.2f}"]
        lines.append(f"| {name} | {1000 * statistics.median(values):.1f} | {ratio:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="step-cost", description=__doc__)
    parser.add_argument("--model", default="cifar_resnet32")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast, for the methods that allow it")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, LOOP], default=[*METHODS, LOOP])
    parser.add_argument("--classifier", type=int, nargs=3, metavar=("BATCH", "DIM", "CLASSES"))
    parser.add_argument("--no_memory", action="store_true", help="skip the memory column")
    parser.add_argument("--memory_of", choices=[*METHODS, LOOP], help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="also write the times as JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; with --classifier, of the classifier part alone."""
    options = parse(argv)
    device = torch.device(options.device)
    setting = Setting(options.model, options.image_size, options.batch_size, options.num_classes)
    if options.memory_of:
        print(measure_memory(setting, options.memory_of, device, options.bf16))
        return
    memory: dict[str, float] = {}
    if options.classifier:
        batch, dim, classes = options.classifier
        steps = classifier_steps(batch, dim, classes, device)
        steps = {name: step for name, step in steps.items() if name == "plain" or name in options.methods}
        title = "classifier part, batch {} x {} features, {} classes".format(*options.classifier)
        times = timed_in_turns(steps, options.rounds, device)
    else:
        names = list(dict.fromkeys(["plain", *options.methods]))
        with tempfile.TemporaryDirectory() as folder:
            times = timed_in_turns(method_steps(setting, names, device, options.bf16, folder), options.rounds, device)
        memory = {} if options.no_memory else peak_memory(setting, names, device, options.bf16)
        title = f"{setting.model}, {setting.batch_size} x {setting.image_size}², {setting.num_classes} classes"
    threads = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(
        f"\n{title}; {platform.machine()} {device.type}, {threads}, torch {torch.__version__}, "
        f"{options.rounds} rounds in turns\n\n{table(times, memory)}"
    )
    if options.output:
        options.output.write_text(
            json.dumps({"title": title, "seconds": times, "memory_mib": memory}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
