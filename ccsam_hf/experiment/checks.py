"""What is refused before anything is trained: settings without sense, used folders, a stage that could not start."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from ..training import ClassifierTrainingArguments, LongTailedTrainer
from .described import changed_settings, read_settings
from .parsing import Settings
from .stages import Stage, resuming


def check_settings(settings: Settings) -> None:
    """ValueError for settings that contradict each other or would have no effect."""
    first, second, options = settings.stage1, settings.stage2, settings.benchmark
    for args, prefix in ((first, "--"), (second, "--stage2.")):
        if str(args.resume_from_checkpoint or "").lower() not in ("", "none", "true", "false"):
            raise ValueError(
                f"{prefix}resume_from_checkpoint {args.resume_from_checkpoint}: give true. Each stage goes on from the "
                "last checkpoint in its folder below --output_dir."
            )
        if args.load_best_model_at_end:
            raise ValueError(
                f"{prefix}load_best_model_at_end would choose the checkpoint on the data that the figures are measured "
                "on: every figure here is that of the last epoch. Leave it out, or use the trainers by themselves."
            )
        if args.label_column != "label":
            raise ValueError(
                f"{prefix}label_column {args.label_column}: no effect, the data are loaded under the name label. For "
                "a data set of the Hub use --hub_label_column."
            )
        if options.data_on_device and args.dataloader_num_workers > 0:
            raise ValueError(
                f"--data_on_device augments on the device itself: leave {prefix}dataloader_num_workers at 0."
            )
        if args.save_only_model and args.save_strategy != "no":
            raise ValueError(f"{prefix}save_only_model leaves checkpoints that cannot be resumed: leave it out.")
    if options.control and (first.perturbation == "none" or first.flat_weight == 0):
        raise ValueError("--control: stage 1 is unperturbed itself, the control would repeat it; leave it out.")
    if first.push_to_hub and not first.hub_model_id:
        raise ValueError("--push_to_hub needs --hub_model_id NAME or USER/NAME, the repository to publish to.")
    if second.push_to_hub:
        raise ValueError("--stage2.push_to_hub: the last stage's model is what --push_to_hub publishes; use that.")


def check_folder(settings: Settings, stages: Sequence[Stage]) -> None:
    """ValueError when a new run would mix its checkpoints with those of another."""
    if settings.folder.exists() and not settings.folder.is_dir():
        raise ValueError(f"--output_dir {settings.folder} is a file: name a folder, it need not exist.")
    used = [] if resuming(settings.stage1) else [stage.folder for stage in stages if stage.has_checkpoint()]
    if used:
        raise ValueError(
            f"{used[0]} holds checkpoints of an earlier run: go on with it by --resume_from_checkpoint true, "
            "choose another --output_dir, or remove that folder."
        )


def check_same(settings: Settings) -> None:
    """ValueError when a run would be resumed with settings that decide the result and differ from those it began with.

    ``settings``: with the benchmark's shot thresholds, as they are recorded.
    """
    earlier = read_settings(settings.folder) if resuming(settings.stage1) else None
    differ = [] if earlier is None else changed_settings(earlier, settings)
    if differ:
        raise ValueError(
            f"{settings.folder} was begun with other settings: {'; '.join(differ[:5])}. Resume with the settings of "
            f"{settings.folder / 'settings.yaml'} (it can be given as --config), or choose another --output_dir."
        )


def check_ahead(
    stages: Sequence[Stage], network: PreTrainedModel, trainer: Callable[[Stage, Any], LongTailedTrainer]
) -> None:
    """Let the later stages check their options now, on a copy of the network, not after hours of training."""
    for stage in stages[1:]:
        args: Any = stage.args
        if isinstance(args, ClassifierTrainingArguments):
            # The cache would be computed, the classifier be drawn again.
            args = replace(args, cache_features=False, cached_views=1, reinitialize_classifier=False)
        try:
            trainer(replace(stage, args=args), copy.deepcopy(network)).resolve()
        except ValueError as error:
            raise ValueError(f"{stage.name.capitalize()}: {error}") from error
