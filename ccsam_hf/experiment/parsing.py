"""Flags and YAML files -> options: a recipe's defaults, then --smoke, then the file, then the command line."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser

from ..data import BENCHMARKS
from ..methods import find_method
from ..training import CCSAMTrainingArguments, ClassifierTrainingArguments
from .command import shown_command
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
    method: str | None = field(
        default=None,
        metadata={"help": "A row of the paper's tables, see `python -m ccsam_hf methods`; file and flags go over it."},
    )
    smoke: bool = field(
        default=False,
        metadata={"help": "Seconds on two cores: generated images in the official layout, a small network, few steps."},
    )


@dataclass(frozen=True)
class Settings:
    """One experiment: what to run and the arguments of both stages.

    smoke: generate images where there are none. command: the command line that these settings come from, fit to show.
    """

    benchmark: BenchmarkOptions
    stage1: CCSAMTrainingArguments
    stage2: ClassifierTrainingArguments
    smoke: bool = False
    command: str | None = None

    @property
    def folder(self) -> Path:
        """Where the experiment leaves everything."""
        return Path(str(self.stage1.output_dir))


class FlagParser(HfArgumentParser):
    """Flags of dataclasses by their whole names; what is wrong is a ValueError.

    An option that may be empty and is no text takes the word none.
    """

    def __init__(self, *types: type, prefix: str = "--") -> None:
        super().__init__(types, allow_abbrev=False, add_help=False)  # type: ignore[arg-type]
        self.flag_prefix = prefix
        for action in self._actions:
            if action.default is None and action.type not in (None, str):
                action.type = _or_none(action.type)

    def error(self, message: str) -> NoReturn:
        # argparse names every spelling of a flag; --a-b beside --a_b says nothing new.
        raise ValueError(re.sub(r"^argument --([^/:]+)(/[^:]+)?:", rf"{self.flag_prefix}\1:", message))

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
            raise ValueError(f"There is no flag {self.flag_prefix}{name}; {near(name, known, self.flag_prefix)}.")
        for name, value in vars(found).items():
            if value == [None]:
                setattr(found, name, None)
        if getattr(found, "loss_args", None) is not None:
            _check_mapping(f"{self.flag_prefix}loss_args", found.loss_args)
        return found


def _check_mapping(flag: str, value: Any) -> None:
    """ValueError unless the value is a mapping, or the JSON text of one."""
    try:
        content = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        content = None
    if not isinstance(content, Mapping):
        raise ValueError(f"{flag} {value}: names and values are needed, as JSON: '{{\"gamma\": 2}}'.")


def _or_none(convert: Any) -> Any:
    def read(word: str) -> Any:
        return None if word.lower() == "none" else convert(word)

    # argparse shows the name of what could not read a value.
    read.__name__ = getattr(convert, "__name__", "option")
    return read


def parse_settings(defaults: Mapping[str, Mapping[str, Any]], argv: Sequence[str]) -> Settings:
    """Settings from a recipe's ``defaults`` (sections benchmark, stage1, stage2), ``--config FILE.yaml`` and flags.

    Flags bear the names of stage 1 and of `BenchmarkOptions`; ``--stage2.NAME`` sets stage 2, which takes over what
    `INHERITED` lists. ``output_dir`` is the folder of the whole experiment. ValueError for anything unknown.
    """
    first, second = split_flags(argv)
    source = _source(first)
    smoke = smoke_sections(str(defaults["benchmark"]["benchmark"])) if source.smoke else {}
    file = {} if source.config is None else read_sections(source.config)
    sections = merged(defaults, smoke, file)
    if source.method is not None:
        sections = merged(defaults, _method_sections(source.method, sections, first), smoke, file)
    found = FlagParser(Source, BenchmarkOptions, CCSAMTrainingArguments).values(
        sections["benchmark"] | sections["stage1"], first
    )
    benchmark, stage1 = _built("benchmark", found), _built("stage1", found)
    folder = Path(str(stage1.output_dir))
    if folder.is_file():
        raise ValueError(f"--output_dir {folder} is a file; name a folder.")
    if benchmark.input_size is not None and benchmark.input_size < 1:
        raise ValueError(f"--input_size {benchmark.input_size}: at least 1 pixel is needed.")
    if source.smoke and benchmark.benchmark != "digits-lt" and benchmark.data_dir is benchmark.hub_dataset is None:
        benchmark = replace(benchmark, data_dir=str(folder / "images"))
    inherited = {name: getattr(stage1, name) for name in INHERITED}
    inherited["output_dir"] = str(folder / "stage2")
    if second and not benchmark.second_stage:
        raise ValueError(f"--stage2.{second[0].removeprefix('--')}: no effect with --second_stage false; leave it out.")
    command = shown_command(str(defaults["benchmark"]["benchmark"]), argv)
    return Settings(benchmark, stage1, _stage2(inherited | sections["stage2"], second), source.smoke, command)


def _method_sections(
    name: str, sections: Mapping[str, Mapping[str, Any]], words: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """A method's options: what was published for the benchmark, and class weights deferred by a share of the epochs,
    both as file and flags have them."""
    parser = FlagParser(Source, BenchmarkOptions, CCSAMTrainingArguments)
    values = parser.values({**sections["benchmark"], **sections["stage1"]}, words)
    data = _built("benchmark", values)
    record = BENCHMARKS.get(data.benchmark)
    return find_method(name).sections(
        values.num_train_epochs,
        milestones=values.lr_milestones is not None,
        benchmark=data.benchmark,
        imbalance_ratio=record.imbalance_ratio if data.imbalance_ratio is None and record else data.imbalance_ratio,
    )


def _stage2(defaults: Mapping[str, Any], words: Sequence[str]) -> ClassifierTrainingArguments:
    try:
        values = FlagParser(ClassifierTrainingArguments, prefix=STAGE2_PREFIX).values(defaults, words)
        return _built("stage2", values)
    except ValueError as error:
        raise ValueError(f"Stage 2: {error}") from error


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
    return Source(found.config, found.method, found.smoke)


def _built(section: str, values: Namespace) -> Any:
    names = option_names(section)
    return OPTIONS[section](**{name: value for name, value in vars(values).items() if name in names})
