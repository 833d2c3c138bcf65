"""Makes run records from what was used: the benchmark, the saved model, the arguments, the log and the machine."""

from __future__ import annotations

import json
import math
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..data import Benchmark
from ..losses import LOSSES
from .publishable import has_path
from .record import HEADLINE, Citation, DataRecord, ModelRecord, Role, RunRecord, StageRecord

PACKAGE_CITATION = Citation(
    role="package",
    text="ccsam_hf: class-conditional sharpness-aware minimization for timm and Hugging Face Transformers.",
)
CCSAM_CITATION = Citation(
    role="method",
    text=(
        "Zhou, Z., Li, L., Zhao, P., Heng, P.-A. and Gong, W. (2023). Class-Conditional Sharpness-Aware Minimization "
        "for Deep Long-Tailed Recognition. CVPR."
    ),
    bibtex=(
        "@inproceedings{zhou2023ccsam,\n"
        "  title = {Class-Conditional Sharpness-Aware Minimization for Deep Long-Tailed Recognition},\n"
        "  author = {Zhou, Zhipeng and Li, Lanqing and Zhao, Peilin and Heng, Pheng-Ann and Gong, Wei},\n"
        "  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},\n"
        "  year = {2023}\n"
        "}"
    ),
)
# Where a run lies on its machine and how it reports; none of it decides the weights.
MACHINE_ARGUMENTS = {
    "data_dir",
    "ddp_backend",
    "deepspeed",
    "disable_tqdm",
    "fsdp_config",
    "list_dir",
    "local_rank",
    "logging_dir",
    "output_dir",
    "overwrite_output_dir",
    "project",
    "push_to_hub",
    "report_to",
    "resume_from_checkpoint",
    "run_name",
    "trackio_bucket_id",
    "trackio_space_id",
    "trackio_static_space_id",
}
HUB_ARGUMENTS = ("hub_", "push_to_hub_")
# What a summary of the log keeps: the losses, and how the classes' radii were ordered.
LOGGED = (
    "epoch",
    "step",
    "loss",
    "loss_clean",
    "logit_shift",
    "radius_few_over_many",
    "radius_rank_correlation",
    "learning_rate",
)
PACKAGES = ("ccsam_hf", "torch", "timm", "transformers", "accelerate", "datasets", "huggingface_hub")


def data_record(data: Benchmark, thresholds: Mapping[str, Any] | None = None, *, holdout: bool = False) -> DataRecord:
    """The record of a loaded benchmark. thresholds: `ShotThresholds.describe()`, the benchmark's own by default."""
    record = data.record
    part = data.validation if holdout else data.test
    kind = "images held out of the training pool" if holdout else "the test set"
    return DataRecord(
        name=record.name,
        title=record.title,
        source=record.source,
        licence=record.licence,
        hub_dataset=record.hub_dataset,
        settings={name: value for name, value in data.settings.items() if not has_path(str(value))},
        class_counts=tuple(int(count) for count in data.class_counts),
        label_names=tuple(data.label_names),
        thresholds=dict(thresholds or record.thresholds.describe()),
        split="validation" if holdout else "test",
        test=None if part is None else f"{kind} of {record.title}: {len(part):,} images",
    )


def citations(
    *, data: Benchmark | None = None, losses: Sequence[str] = (), methods: Sequence[Citation] = (CCSAM_CITATION,)
) -> tuple[Citation, ...]:
    """Methods, the data's own citation, the references of the named losses, and the package, each once."""
    found = [*methods]
    if data is not None and data.record.citation:
        found.append(Citation("data", data.record.citation))
    found += [Citation("loss", LOSSES[name].reference) for name in losses if name != "cross_entropy"]
    return tuple(dict.fromkeys([*found, PACKAGE_CITATION]))


def model_record(folder: str | Path, name: str | None = None, *, notes: Sequence[str] = ()) -> ModelRecord:
    """The record of the network in a saved model folder. ValueError: no config.json in it."""
    place = Path(folder)
    config = read_config(place)
    architecture = config.get("architecture") or ", ".join(config.get("architectures") or ()) or "unknown"
    head = config.get("classifier_head")
    is_timm = "architecture" in config and head is None
    shown = ("input_size", "mean", "std", "crop_pct", "interpolation")
    settings = {key: config["pretrained_cfg"][key] for key in shown if key in config.get("pretrained_cfg", {})}
    is_text = any("SequenceClassification" in entry for entry in config.get("architectures") or ())
    return ModelRecord(
        name=name or place.resolve().name,
        architecture=architecture,
        parameters=count_parameters(place),
        library="timm" if is_timm else "transformers",
        task="text-classification" if is_text else "image-classification",
        preprocessing=settings,
        training_prior=config.get("training_prior") if isinstance(config.get("training_prior"), str) else None,
        classifier=None if head is None else head["kind"],
        notes=tuple(notes),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no config.json: name the folder that save_pretrained wrote.")
    return json.loads(path.read_text(encoding="utf-8"))


def data_of_config(config: Mapping[str, Any]) -> DataRecord | None:
    """Class counts and label names of a checkpoint about whose data nothing else is known."""
    counts, labels = config.get("class_counts") or (), config.get("id2label") or {}
    names = [labels[key] for key in sorted(labels, key=int)] if labels else list(config.get("label_names") or ())
    if not counts and not names:
        return None
    return DataRecord(
        "unknown", "data that this record does not name", class_counts=tuple(counts), label_names=tuple(names)
    )


def count_parameters(folder: Path) -> int | None:
    """Numbers in the folder's safetensors files of weights, buffers included; None when there are none."""
    files = sorted(folder.glob("model*.safetensors"))
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as stored:
            total += sum(torch.Size(stored.get_slice(name).get_shape()).numel() for name in stored.keys())  # noqa: SIM118
    return total if files else None


def bare_record(folder: str | Path, name: str | None = None) -> RunRecord:
    """The record of a saved model about whose training and evaluation nothing is known."""
    return RunRecord(model_record(folder, name), data_of_config(read_config(Path(folder))))


def stage_record(
    role: Role,
    method: str,
    arguments: Any = None,
    *,
    metrics: Mapping[str, Any] | None = None,
    paper: Mapping[str, float] | None = None,
    wall_time_s: float | None = None,
    log_history: Sequence[Mapping[str, Any]] = (),
) -> StageRecord:
    """One stage from its arguments dataclass (such as CCSAMTrainingArguments), its metrics and its log.

    metrics: an evaluation's metrics.json, or what `trainer.evaluate()` returned. log_history: trainer.state's.
    """
    values = {} if arguments is None else portable_arguments(arguments)
    changed = () if arguments is None else tuple(name for name in values if _is_changed(arguments, name))
    figures = None if metrics is None else headline_metrics(metrics)
    logged = log_summary(log_history)
    return StageRecord(
        role, method, values, changed, figures, None if paper is None else dict(paper), wall_time_s, logged
    )


def portable_arguments(arguments: Any) -> dict[str, Any]:
    """The fields of an arguments dataclass as plain values, without what belongs to the machine or the Hub."""
    found = {}
    for field in fields(arguments):
        value = _plain_value(getattr(arguments, field.name))
        of_machine = field.name in MACHINE_ARGUMENTS or field.name.startswith(HUB_ARGUMENTS)
        if not of_machine and not has_path(json.dumps(value)):
            found[field.name] = value
    return found


def _plain_value(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain_value(item) for name, item in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(name): _plain_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    is_plain = isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)


def _is_changed(arguments: Any, name: str) -> bool:
    """Whether a value is not the field's default; None, False and [] are one, since transformers fills them in."""
    field = next(field for field in fields(arguments) if field.name == name)
    default = field.default if field.default_factory is MISSING else field.default_factory()
    value = getattr(arguments, name)
    if default is None and is_dataclass(value) and not isinstance(value, type):
        default = type(value)()
    ours, usual = _plain_value(value), _plain_value(default)
    return ours != usual and not (_is_nothing(ours) and _is_nothing(usual))


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or value in ([], {}, "")


def headline_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of `HEADLINE` in an evaluation's metrics.json, or in what `trainer.evaluate()` returned.

    A group without classes is None; figures that were not measured (ECE by the trainer) are left out.
    """
    if "closed_set" in metrics:
        closed = metrics["closed_set"]
        figures = {name: closed[name] for name in HEADLINE if name != "ece"}
        return figures | {"ece": closed["calibration"]["overall"]["ece"]}
    plain = {name.removeprefix("eval_"): value for name, value in metrics.items()}
    return {name: plain[name] for name in HEADLINE if name in plain}


def log_summary(log_history: Sequence[Mapping[str, Any]], rows: int = 6) -> tuple[dict[str, float], ...]:
    """`LOGGED` of at most `rows` entries with a training loss, evenly spread, the first and the last among them."""
    entries = [entry for entry in log_history if "loss" in entry]
    last = len(entries) - 1
    chosen = sorted({round(i * last / (rows - 1)) for i in range(rows)}) if entries else []
    return tuple({name: entries[i][name] for name in LOGGED if name in entries[i]} for i in chosen)


def training_record(
    folder: str | Path,
    name: str,
    role: Role,
    method: str,
    arguments: Any,
    *,
    step: int,
    log_history: Sequence[Mapping[str, Any]],
    thresholds: Mapping[str, Any],
    device: torch.device | str,
) -> RunRecord:
    """One stage, from a saved model folder and plain parts of a trainer (`state`, `args`).

    Only an evaluation at `step`, the step of the saved weights, counts as theirs. arguments: the trainer's dataclass,
    with the fields `seed` and `loss`. thresholds: `ShotThresholds.describe()`.
    """
    bare = bare_record(folder, name)
    data = bare.data
    if data is not None:
        data = replace(data, thresholds=dict(thresholds), test="the evaluation set that the trainer was given")
    figures = last_evaluation(log_history, step)
    stage = stage_record(role, method, arguments, metrics=figures, log_history=log_history)
    return replace(
        bare,
        data=data,
        stages=(stage,),
        published=role,
        seed=arguments.seed,
        commit=package_commit(),
        versions=versions(),
        device=device_name(device),
        citations=citations(losses=[arguments.loss]),
    )


def last_evaluation(log_history: Sequence[Mapping[str, Any]], step: int) -> Mapping[str, Any] | None:
    """The evaluation logged at a step, the last one if there were several; None without any."""
    found = [entry for entry in log_history if entry.get("step") == step and headline_metrics(entry)]
    evaluated = [entry for entry in found if any(name.startswith("eval_") for name in entry)]
    return evaluated[-1] if evaluated else None


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
        done = subprocess.run(call, capture_output=True, text=True, timeout=30, encoding="utf-8")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if tracked.returncode == 0 and done.returncode == 0 else None


def portable_command(argv: Sequence[str]) -> str:
    """A command line to show, in which paths of this machine are reduced to their last part."""
    return shlex.join(_portable_word(word) for word in argv)


def _portable_word(word: str) -> str:
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if has_path(value) or Path(value).is_absolute() else word
