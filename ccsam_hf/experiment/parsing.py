"""Flags and YAML files -> options: a recipe's defaults, then --smoke, then the file, then the command line."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from ..training import CCSAMTrainingArguments, ClassifierTrainingArguments
from .options import BenchmarkOptions
from .sections import OPTIONS, merged, near, option_names, read_sections
from .smoke import smoke_sections

STAGE2_PREFIX = "--stage2."
# What both stages of a run share, unless stage 2 is told otherwise: how it is run and watched, not how it learns.
INHERITED = (
    "seed",
    "data_seed",
    "full_determinism",
    "bf16",
    "fp16",
    "tf32",
    "use_cpu",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "ddp_backend",
    "ddp_timeout",
    "many_shot",
    "few_shot",
    "shot_boundaries",
    "report_to",
    "disable_tqdm",
    "log_level",
    "logging_strategy",
    "logging_steps",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "resume_from_checkpoint",
)


@dataclass
class Source:
    """Where settings come from, beside the flags."""

    config: str | None = field(
        default=None, metadata={"help": "YAML file with sections benchmark, stage1, stage2; flags go over it."}
    )
    smoke: bool = field(
        default=False,
        metadata={"help": "Seconds on two cores: generated images in the official layout, a small network, few steps."},
    )


@dataclass(frozen=True)
class Settings:
    """One experiment: what to run and the arguments of both stages. smoke: generate images where there are none."""

    benchmark: BenchmarkOptions
    stage1: CCSAMTrainingArguments
    stage2: ClassifierTrainingArguments
    smoke: bool = False

    @property
    def folder(self) -> Path:
        """Where the experiment leaves everything."""
        return Path(str(self.stage1.output_dir))


class FlagParser(HfArgumentParser):
    """Flags of dataclasses by their whole names; what is wrong is a ValueError."""

    def __init__(self, *types: type) -> None:
        super().__init__(types, allow_abbrev=False, add_help=False)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.replace("argument --", "--").replace("/--", ", --"))

    def values(self, defaults: Mapping[str, Any], words: Sequence[str]) -> Namespace:
        """Defaults and flags by name; ValueError for a word that is neither a flag nor its value."""
        self.set_defaults(**defaults)
        found, rest = self.parse_known_args(words)
        if rest:
            known = {f.name for options in self.dataclass_types for f in fields(options)}
            flag = next((word for word in rest if word.startswith("--")), None)
            if flag is None:
                raise ValueError(f"{rest[0]!r} belongs to no flag; flags look like --NAME VALUE.")
            name = flag.removeprefix("--").partition("=")[0]
            raise ValueError(f"There is no flag --{name}{near(name, known, '--')}.")
        return found


def parse_settings(defaults: Mapping[str, Mapping[str, Any]], argv: Sequence[str]) -> Settings:
    """Settings from a recipe's ``defaults`` (sections benchmark, stage1, stage2), ``--config FILE.yaml`` and flags.

    Flags bear the names of stage 1 and of `BenchmarkOptions`; ``--stage2.NAME`` sets stage 2, which takes over what
    `INHERITED` lists. ``output_dir`` is the folder of the whole experiment. ValueError for anything unknown.
    """
    first, second = split_flags(argv)
    source = _source(first)
    smoke = smoke_sections(str(defaults["benchmark"]["benchmark"])) if source.smoke else {}
    sections = merged(defaults, smoke, {} if source.config is None else read_sections(source.config))
    found = FlagParser(Source, BenchmarkOptions, CCSAMTrainingArguments).values(
        sections["benchmark"] | sections["stage1"], first
    )
    benchmark, stage1 = _built("benchmark", found), _built("stage1", found)
    folder = Path(str(stage1.output_dir))
    if source.smoke and benchmark.benchmark != "digits-lt" and benchmark.data_dir is benchmark.hub_dataset is None:
        benchmark = replace(benchmark, data_dir=str(folder / "images"))
    inherited = {name: getattr(stage1, name) for name in INHERITED}
    inherited["output_dir"] = str(folder / "stage2")
    if second and not benchmark.second_stage:
        raise ValueError(f"--stage2.{second[0].removeprefix('--')}: no effect with --second_stage false; leave it out.")
    return Settings(benchmark, stage1, _stage2(inherited | sections["stage2"], second), source.smoke)


def _stage2(defaults: Mapping[str, Any], words: Sequence[str]) -> ClassifierTrainingArguments:
    try:
        return _built("stage2", FlagParser(ClassifierTrainingArguments).values(defaults, words))
    except ValueError as error:
        raise ValueError(f"Stage 2 (its flags are --stage2.NAME): {error}") from error


def split_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags without and with the prefix of stage 2, each with its values, the prefix taken off."""
    first: list[str] = []
    second: list[str] = []
    current = first
    for word in argv:
        if word.startswith("--"):
            current = second if word.startswith(STAGE2_PREFIX) else first
            word = "--" + word.removeprefix(STAGE2_PREFIX) if current is second else word
        current.append(word)
    return first, second


def _source(words: Sequence[str]) -> Source:
    """``--config`` and ``--smoke``, which decide the defaults of all other flags."""
    known: ArgumentParser = FlagParser(Source)
    found, _ = known.parse_known_args(words)
    return Source(found.config, found.smoke)


def _built(section: str, values: Namespace) -> Any:
    names = option_names(section)
    return OPTIONS[section](**{name: value for name, value in vars(values).items() if name in names})
