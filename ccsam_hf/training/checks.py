"""What both trainers refuse before the first step, with the reason and the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import HubStrategy, get_last_checkpoint
from transformers.utils import is_peft_available, is_torch_xla_available

from ..data import check_class_counts, check_label_order, counts_from_labels, found_label_column, labels_of
from ..data.counts import class_names
from ..losses import LongTailedLoss
from ..models import ClassifierHead, CosineClassifier
from .running import RunningUnit


def check_trainer(trainer: Trainer) -> None:
    """Options of the stock Trainer that would bypass or silently change the perturbed loss."""
    args = trainer.args
    check_milestones(args)
    if args.label_smoothing_factor != 0:
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor} would bypass the perturbation: set it to 0 and "
            f"choose loss='label_smoothing' with loss_args={{'epsilon': {args.label_smoothing_factor}}}, which is "
            "the same loss."
        )
    if trainer.compute_loss_func is not None:
        raise ValueError(
            "compute_loss_func would bypass the perturbation: remove it and choose the base loss by `loss`."
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"python would train on {args.n_gpu} GPUs with DataParallel, which repeats hooks per replica: start with "
            f"`accelerate launch --num_processes {args.n_gpu}`, or show one GPU by CUDA_VISIBLE_DEVICES=0."
        )
    if args.push_to_hub and args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        raise ValueError(
            f"hub_strategy={HubStrategy(args.hub_strategy).value!r} would upload optimizer states, which are pickles: "
            "choose 'every_save' or 'end'."
        )
    if trainer.accelerator.mixed_precision == "fp16" and not trainer.accelerator.native_amp:
        raise ValueError(
            f"fp16 has no effect on {args.device.type}: leave it out, or use bf16. (Accelerate has fp16 on "
            "accelerators only, and would train in float32.)"
        )
    if is_torch_xla_available():
        raise ValueError("XLA devices are not supported: train on CPU, CUDA or MPS.")
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise ValueError("DeepSpeed and FSDP are not supported: use DDP (`accelerate launch --multi_gpu`).")
    _check_model(trainer.model, args)


def check_milestones(args: Any) -> None:
    """Refuse milestones of the learning rate that the run never reaches; those of a run by steps are taken as given."""
    late = [epoch for epoch in args.lr_milestones or () if epoch >= args.num_train_epochs]
    if late and args.max_steps <= 0:
        raise ValueError(
            f"lr_milestones={args.lr_milestones}: {late[0]:g} is not reached in {args.num_train_epochs:g} epochs; "
            "lower it or leave it out."
        )


def _check_model(model: Any, args: TrainingArguments) -> None:
    if is_peft_available():
        from peft import PeftModel

        if isinstance(model, PeftModel):
            raise ValueError(
                "Adapters (PEFT) are not supported: neither library would load the published folder. Merge them by "
                "merge_and_unload() and train the merged model."
            )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            "model.add_adapter(...) froze every weight but the adapter's, the classifier's included: train without "
            "adapters, or merge them first (get_peft_model, then merge_and_unload())."
        )
    for name, parameter in model.named_parameters():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            raise ValueError(
                f"The weight {name} is {str(parameter.dtype).removeprefix('torch.')}: such weights round small steps "
                "away. Load the model with dtype=torch.float32 and train with bf16=True or fp16=True, which computes "
                "in half precision and keeps float32 weights."
            )
    config = model.config if isinstance(model, PreTrainedModel) else None
    if config is not None and config.problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"config.problem_type is {config.problem_type!r}: class-conditional losses need one label per sample; "
            "set it to 'single_label_classification'."
        )
    has_statistics = any(isinstance(m, nn.modules.batchnorm._NormBase) for m in model.modules())
    if args.gradient_checkpointing and has_statistics:
        raise ValueError(
            "gradient_checkpointing runs each layer twice, which moves BatchNorm's running statistics twice: "
            "switch it off, or use a model without BatchNorm."
        )


def check_checkpoint(resume_from: str | bool | None, output_dir: str | None, role: str) -> None:
    """Refuse to go on from a checkpoint of the other stage: its optimizer knows other parameters.

    Stage 1, and it alone, keeps a running mean of the radius in ``trainer_state.json``.
    """
    folder = get_last_checkpoint(output_dir) if resume_from is True else resume_from
    state = Path(folder) / TRAINER_STATE_NAME if folder else None
    if state is None or not state.is_file():
        return
    stage1 = RunningUnit.__name__ in (json.loads(state.read_text(encoding="utf-8")).get("stateful_callbacks") or {})
    if role == "stage2" and stage1:
        raise ValueError(
            f"resume_from_checkpoint: {folder} was written by stage 1 (CCSAMTrainer), which ClassifierTrainer cannot "
            "go on with. To retrain the classifier of that model, load it by from_pretrained and leave "
            "resume_from_checkpoint out; to go on with stage 2, give a checkpoint of stage 2."
        )
    if role == "stage1" and not stage1:
        raise ValueError(
            f"resume_from_checkpoint: {folder} was not written by stage 1 (CCSAMTrainer) but by stage 2 or another "
            "Trainer. To start from its weights, load them by from_pretrained and leave resume_from_checkpoint out."
        )


def check_head(loss: LongTailedLoss, name: str, head: ClassifierHead) -> None:
    """Refuse a loss that expects cosines on a classifier that gives something else."""
    if not loss.requires_cosine_head:
        return
    if not isinstance(head.module, CosineClassifier):
        raise ValueError(
            f"loss={name!r} needs cosines, but the classifier is {head.kind}: put a cosine classifier in its place by "
            "replace_classifier(model, 'cosine'), or choose another loss such as 'logit_adjustment'."
        )
    if loss.logit_scale != 1 and (head.module.learned_scale or head.module.initial_scale != 1):
        raise ValueError(
            f"loss={name!r} multiplies the cosines by {loss.logit_scale:g}, and the classifier scales them as well: "
            "use replace_classifier(model, 'cosine', scale=1), or loss_args with scale=1."
        )


def resolve_class_counts(
    given: Tensor | Sequence[int] | None,
    dataset: Any,
    label_column: str,
    num_classes: int,
    read_labels: Callable[[], np.ndarray],
) -> Tensor:
    """Training counts n_c [C] int64: counted, or those given after checking them against the data's labels.

    Counts may be given for a class without images, and must be where the labels cannot be read beforehand.
    """
    if given is None:
        return counts_from_labels(read_labels(), num_classes, class_names(dataset, label_column), label_column)
    counts = torch.as_tensor(given)
    if counts.shape != (num_classes,):
        raise ValueError(
            f"class_counts has {counts.numel()} entries, but the classifier has {num_classes} outputs: "
            "give one training count for each class, in label order."
        )
    if counts.is_floating_point() or (counts < 0).any():
        raise ValueError("class_counts must be whole numbers of at least 0.")
    if label_column in getattr(dataset, "column_names", [label_column]):
        check_class_counts(counts, dataset, label_column)
    return counts.long()


def check_evaluation_labels(dataset: Any, label_column: str, num_classes: int, label_names: Sequence[str]) -> None:
    """Refuse evaluation sets, one or several by name, whose labels are not the model's; only readable ones."""
    for name, part in dataset.items() if isinstance(dataset, dict) else [("", dataset)]:
        column = label_column if part is None else found_label_column(part, label_column)
        if not isinstance(part, datasets.Dataset) or column not in part.column_names or len(part) == 0:
            continue
        check_label_order(part, label_names, column)
        largest = int(labels_of(part, column).max())
        if largest >= num_classes:
            raise ValueError(
                f"Column {column!r} of the evaluation set {name} holds label {largest}, outside "
                f"0..{num_classes - 1}: correct the labels or drop the classes that training does not know."
            )
