"""What a step of each method costs beside plain training, timed in turns within one run."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..losses import CrossEntropy, Target, logit_gradient
from ..models import create_model
from ..perturbation import RadiusRule, class_groups, linear_weight_norm, shifted_logits, unit_logit_shift
from ..training import CCSAMTrainer, CCSAMTrainingArguments

SAM: dict[str, Any] = {"perturbation": "sam"}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"perturbation": "none"},
    "SAM": SAM,
    "ImbSAM": {"perturbation": "imbsam"},
    "Focal-SAM": {"perturbation": "focal_sam"},
    "CC-SAM classifier": {},
    "CC-SAM cosine classifier": {"classifier": "cosine", "classifier_args": {"scale": 30.0}},
    "CC-SAM norm_affine": {"perturbed_layers": "norm_affine"},
    "CC-SAM last stage": {"perturbed_layers": "last:1"},
    "CC-SAM all layers": {"perturbed_layers": "all"},
    "3 groups, batch statistics": {**SAM, "partition": "quantiles", "partition_groups": 3},
}
LOOP = "loop over classes"


@dataclass(frozen=True)
class Setting:
    """A network and a batch."""

    model: str
    image_size: int
    batch_size: int
    num_classes: int

    def batch(self, device: torch.device) -> dict[str, Tensor]:
        """Random images; labels from an exponential long tail of ratio 100."""
        generator = torch.Generator().manual_seed(0)
        share = 100.0 ** -(torch.arange(self.num_classes) / max(self.num_classes - 1, 1))
        labels = torch.multinomial(share, self.batch_size, replacement=True, generator=generator)
        images = torch.randn(self.batch_size, 3, self.image_size, self.image_size, generator=generator)
        return {"pixel_values": images.to(device), "labels": labels.to(device)}

    def class_counts(self) -> Tensor:
        return (500 * 100.0 ** -(torch.arange(self.num_classes) / max(self.num_classes - 1, 1))).long()


class RandomImages(torch.utils.data.Dataset):
    """Stands in for a training set while a trainer resolves its options."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": torch.zeros(3, self.setting.image_size, self.setting.image_size), "labels": index}


def trainer_step(setting: Setting, options: dict[str, Any], folder: str, bf16: bool) -> Callable[[], None]:
    """One optimizer step of `CCSAMTrainer`, on a batch that is already on the device."""
    torch.manual_seed(0)
    model = create_model(setting.model, setting.num_classes, input_size=setting.image_size)
    args = CCSAMTrainingArguments(
        folder, report_to=[], optim="sgd", optim_args="momentum=0.9", learning_rate=1e-3, bf16=bf16, **options
    )
    trainer = CCSAMTrainer(
        model=model, args=args, train_dataset=RandomImages(setting), class_counts=setting.class_counts()
    )
    trainer.resolve()
    trainer.create_optimizer()
    prepared, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.current_gradient_accumulation_steps = 1
    batch = setting.batch(args.device)

    def step() -> None:
        trainer.training_step(prepared, dict(batch))
        trainer.end_accumulation()
        optimizer.step()
        optimizer.zero_grad()

    return step


def loop_loss(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    """The perturbed loss as the released algorithm finds it: for every class present one backward pass through the
    retained graph for its gradient, moved weights, and a forward pass of the classifier over its samples."""
    logits = F.linear(features, weight, bias)
    weight_norm, number = linear_weight_norm(weight, bias)
    rule = RadiusRule(radius_scale=0.01)
    total = features.new_zeros(())
    for c in labels.unique().tolist():
        members = labels == c
        loss = F.cross_entropy(logits[members], labels[members])
        g_weight, g_bias = torch.autograd.grad(loss, [weight, bias], retain_graph=True)
        norm = torch.sqrt(g_weight.square().sum() + g_bias.square().sum())
        length = rule.lengths(norm[None], class_counts[c : c + 1], weight_norm, number)[0]
        moved = F.linear(features[members], weight + length * g_weight / norm, bias + length * g_bias / norm)
        total = total + F.cross_entropy(moved, labels[members], reduction="sum")
    return total / len(labels)


def closed_form_loss(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    """The same loss by the closed form."""
    loss, target = CrossEntropy(len(weight)), Target(labels)
    logits = F.linear(features, weight, bias)
    groups = class_groups(labels, class_counts)
    shift, grad_norm = unit_logit_shift(features, logit_gradient(loss, logits, target), groups, True)
    weight_norm, number = linear_weight_norm(weight, bias)
    lengths = RadiusRule(radius_scale=0.01).lengths(grad_norm, class_counts, weight_norm, number)
    return loss(shifted_logits(logits, shift, lengths, groups), target).mean()


def plain_loss(features: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, class_counts: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(features, weight, bias), labels)


def classifier_steps(batch: int, dim: int, classes: int, device: torch.device) -> dict[str, Callable[[], None]]:
    """Forward and backward of the classifier part alone, by each way."""
    setting = Setting("", 1, batch, classes)
    labels, counts = setting.batch(device)["labels"], setting.class_counts().to(device)
    generator = torch.Generator().manual_seed(0)
    features, weight = (torch.randn(n, dim, generator=generator).to(device) for n in (batch, classes))
    leaves = [features.requires_grad_(), (0.02 * weight).requires_grad_(), torch.zeros(classes, device=device)]
    leaves[2].requires_grad_()

    def step(loss: Callable[..., Tensor]) -> Callable[[], None]:
        return lambda: torch.autograd.backward(loss(*leaves, labels, counts), inputs=leaves)

    ways = {"plain": plain_loss, "CC-SAM classifier": closed_form_loss, LOOP: loop_loss}
    return {name: step(loss) for name, loss in ways.items()}


def whole_loop_step(setting: Setting, device: torch.device) -> Callable[[], None]:
    """A whole training step whose classifier part is the loop over classes."""
    torch.manual_seed(0)
    model: Any = create_model(setting.model, setting.num_classes, input_size=setting.image_size)
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    batch, counts = setting.batch(device), setting.class_counts().to(device)
    inner: Any = model.timm_model
    head: nn.Linear = inner.get_classifier()

    def step() -> None:
        features = inner.forward_head(inner.forward_features(batch["pixel_values"]), pre_logits=True)
        loop_loss(features, head.weight, head.bias, batch["labels"], counts).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


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


def peak_memory(setting: Setting, names: Sequence[str], device: torch.device, bf16: bool) -> dict[str, float]:
    """MiB that a step of each method needs at most, each measured in a process of its own."""
    found = {}
    for name in names:
        command = [sys.executable, "-m", "ccsam_hf.study.step_cost", "--memory_of", name, "--model", setting.model]
        command += ["--image_size", str(setting.image_size), "--batch_size", str(setting.batch_size)]
        command += ["--num_classes", str(setting.num_classes), "--device", str(device)] + ["--bf16"] * bf16
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        with suppress(ValueError, IndexError):
            found[name] = float(output.split()[-1])
    return found


def _measure_memory(setting: Setting, name: str, device: torch.device, bf16: bool) -> float:
    """Most MiB in use during a step above what the imports take: model, optimizer, activations, the method's own."""
    before = _resident()
    with tempfile.TemporaryDirectory() as folder:
        step = _steps(setting, [name], device, bf16, folder)[name]
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
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _steps(
    setting: Setting, names: Sequence[str], device: torch.device, bf16: bool, folder: str
) -> dict[str, Callable[[], None]]:
    steps = {}
    for name in names:
        if name == LOOP:
            steps[name] = whole_loop_step(setting, device)
        else:
            options = {**METHODS[name], "use_cpu": device.type == "cpu"}
            steps[name] = trainer_step(setting, options, folder, bf16)
    return steps


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
        print(_measure_memory(setting, options.memory_of, device, options.bf16))
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
            times = timed_in_turns(_steps(setting, names, device, options.bf16, folder), options.rounds, device)
        memory = {} if options.no_memory else peak_memory(setting, names, device, options.bf16)
        title = f"{setting.model}, {setting.batch_size} x {setting.image_size}², {setting.num_classes} classes"
    threads = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(
        f"\n{title}; {platform.machine()} {device.type}, {threads}, torch {torch.__version__}, "
        f"{options.rounds} rounds in turns\n\n{table(times, memory)}"
    )
    if options.output:
        options.output.write_text(json.dumps({"title": title, "seconds": times, "memory_mib": memory}, indent=1) + "\n")


if __name__ == "__main__":
    main()
