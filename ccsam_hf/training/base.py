"""What both stages share: class counts, the classifier's features, the base loss and the micro-batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers.trainer_utils import EvalLoopOutput

from ..losses import LongTailedLoss, Target, build_loss, reduce_losses
from ..metrics import LongTailMetrics
from ..models import ClassifierHead, FeatureTap, ResidualBranches, make_savable
from .arguments import LongTailedTrainingArguments
from .branches import BranchLoss, branch_members
from .checks import check_checkpoint, check_evaluation_labels, check_head, check_trainer, resolve_class_counts
from .probing import ProbingTrainer
from .sample_loss import SampleLoss, without_labels

logger = logging.getLogger(__name__)


class LongTailedTrainer(ProbingTrainer):
    """`transformers.Trainer` for classifiers whose logits come from one ``nn.Linear``, on long-tailed data.

    Takes everything ``Trainer`` takes, and ``class_counts`` (one training count for each class, in label order) where
    they cannot be read from the training set. Unless given, ``compute_metrics`` reports many/medium/few accuracy and
    logits are never gathered. Options are resolved when training starts, so that a hyper-parameter search may set
    them. The order of samples is a pure function of (seed, epoch).
    """

    # The loss is the mean over one micro-batch; Trainer divides it by the number of micro-batches.
    loss_is_scaled_for_ga = False
    arguments_class: ClassVar[type[LongTailedTrainingArguments]] = LongTailedTrainingArguments
    data_collator: Any
    head: ClassifierHead

    def __init__(
        self,
        model: nn.Module | None = None,
        args: LongTailedTrainingArguments | None = None,
        *trainer_arguments: Any,
        class_counts: Tensor | Sequence[int] | None = None,
        **trainer_options: Any,
    ) -> None:
        args = self.arguments_class("tmp_trainer") if args is None else args
        if not isinstance(args, self.arguments_class):
            raise ValueError(
                f"{type(self).__name__} needs {self.arguments_class.__name__}, got {type(args).__name__}: "
                "build its arguments with that class; it has every field of TrainingArguments."
            )
        super().__init__(model, args, *trainer_arguments, class_counts=class_counts, **trainer_options)
        make_savable(self.model)
        self._tap: FeatureTap | None = None
        self._loss: LongTailedLoss | None = None
        self._evaluation_losses: list[Tensor] = []

    # ---- before the first step -------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        self._resuming = bool(resume_from_checkpoint)
        check_checkpoint(resume_from_checkpoint, self.args.output_dir, self.role)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self._release()

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        # The first call of every run that comes after a hyper-parameter search has set its options and its model,
        # and before the model is wrapped or compiled.
        self.resolve()
        return super().get_train_dataloader()

    def resolve(self) -> None:
        """Check the options against model and data, and prepare everything that the steps of this run need."""
        self._check_dataset()
        check_trainer(self)
        self.head = self._find_head()
        self._outputs = self.head.module.out_features
        self.class_counts = resolve_class_counts(
            self._given_counts, self.train_dataset, self.label_column, self._outputs, self.training_labels
        ).to(self.args.device)
        check_evaluation_labels(self.eval_dataset, self.args.label_column, self._outputs, self._model_names())
        self._record_counts()
        self._check_best_metric()
        self._loss = self._build_loss()
        check_head(self._loss, self.args.loss, self.head)
        self.model.config.training_prior = self.training_prior()
        if self._tap is not None:
            self._tap.remove()
        if self.args.torch_compile:
            # Code compiled by an earlier run knows nothing of the hook that is registered now.
            torch.compiler.reset()
        self._tap = FeatureTap(self.head.module)

    def _release(self) -> None:
        self._probed = None
        self.stop_regularisers()
        if self._tap is not None:
            self._tap.remove()
            self._tap = None

    def _record_counts(self) -> None:
        assert self.class_counts is not None
        counts = self.class_counts.tolist()
        before = getattr(self.model.config, "class_counts", None)
        if before is not None and list(before) != counts:
            logger.warning(
                "The model's config.class_counts (%d samples) differ from the training set's (%d samples) and are "
                "replaced: metrics and priors now refer to this training set.",
                sum(before),
                sum(counts),
            )
        self.model.config.class_counts = counts

    def training_prior(self) -> str | None:
        """The class prior that the trained logits presume ("train", "uniform"), None where there is no telling."""
        return None

    def _check_best_metric(self) -> None:
        wanted = self.args.metric_for_best_model
        names = ("many", "medium", "few")
        absent = set(names) - set(LongTailMetrics(self._known_counts().tolist(), self.args.shots()).metric_names)
        if wanted is not None and wanted.removeprefix("eval_") in absent:
            raise ValueError(
                f"metric_for_best_model={wanted!r} can never be reported: no class of the training set is in that "
                "group; choose another metric or other many_shot/few_shot thresholds."
            )

    def _build_loss(self) -> LongTailedLoss:
        counts = self._known_counts()
        loss = build_loss(self.args.loss, counts.cpu(), counts.numel(), **(self.args.loss_args or {}))
        if self.args.max_steps <= 0:
            loss.check_epochs(self.args.num_train_epochs)
        return loss.to(self.args.device)

    # ---- the step -------------------------------------------------------------------------------------------------

    def forward(self, model: nn.Module, inputs: Mapping[str, Any]) -> tuple[Any, Tensor]:
        """The model's outputs and its logits [B, C]."""
        outputs = model(**inputs)
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        return outputs, logits

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        inputs, labels = without_labels(inputs)
        if model.training:
            return self.training_loss(model, inputs, labels)
        value, outputs = self.evaluation_loss(model, inputs, labels)
        return (value, outputs) if return_outputs else value

    def training_loss(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Tensor:
        """The objective of one micro-batch."""
        raise NotImplementedError

    def evaluation_loss(self, model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> tuple[Tensor, Any]:
        """The base loss without mixing, noise, class weights or perturbation, and the outputs: for ``evaluate``."""
        outputs, logits = self.forward(model, inputs)
        target = Target(labels)
        self.loss.eval()
        losses = self.loss(logits, target)
        self._evaluation_losses.append(self.accelerator.gather_for_metrics(losses.detach()))
        return reduce_losses(losses, target, num_classes=logits.shape[1]), outputs

    def evaluation_loop(self, *arguments: Any, **options: Any) -> EvalLoopOutput:
        """Trainer's loop, with the loss as the mean over samples.

        Processes share the samples and repeat some to fill the last batch; Trainer averages the batches' means, which
        counts those twice.
        """
        self._evaluation_losses = []
        output = super().evaluation_loop(*arguments, **options)
        prefix = options.get("metric_key_prefix", "eval")
        if output.metrics is not None and f"{prefix}_loss" in output.metrics and self._evaluation_losses:
            output.metrics[f"{prefix}_loss"] = torch.cat(self._evaluation_losses).double().mean().item()
        return output

    def sample_loss(self, logits: Tensor, target: Target, reduction: str = "sample") -> SampleLoss:
        """The base loss of this micro-batch; its noise is drawn by (seed, step, place of the micro-batch)."""
        self.loss.train()
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence(self.draw_key()).generate_state(1)[0]))
        draw = self.loss.draw(logits.shape, generator, logits.device)
        return SampleLoss(self.loss, target, draw, reduction, self.epoch, self.branch_loss())

    def branch_loss(self) -> BranchLoss | None:
        """What a classifier with residual branches adds to the loss of this micro-batch."""
        head = self.head.module
        if not isinstance(head, ResidualBranches):
            return None
        with self.accelerator.autocast():
            logits = head.branch_logits(self.features).float()
        return BranchLoss(logits, branch_members(self._known_counts(), self.args.shots()), head.branch_weight)

    def draw_key(self) -> tuple[int, int, int]:
        """(seed, step, place): the same for a micro-batch whether processes or accumulation divide the batch."""
        place = self.micro_batch * self.accelerator.num_processes + self.accelerator.process_index
        return self.args.seed, self.state.global_step, place

    def draw_generator(self, device: torch.device) -> torch.Generator:
        """Seeded by `draw_key`, apart from the noise of the loss."""
        seed = np.random.SeedSequence((*self.draw_key(), 1)).generate_state(1)
        return torch.Generator(device).manual_seed(int(seed[0]))

    @property
    def loss(self) -> LongTailedLoss:
        """The base loss of the run; evaluation before any training builds it from the known counts."""
        if self._loss is None:
            self._loss = self._build_loss()
        return self._loss

    @property
    def features(self) -> Tensor:
        """The classifier's input z of the forward pass that has just run, [B, D]."""
        assert self._tap is not None, "features exist during training only"
        return self._tap.features

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        assert self._tap is not None
        self._tap.clear()
        loss = self.run_micro_batch(model, inputs, *args, **kwargs)
        self._tap.clear()
        self.micro_batch += 1
        return loss

    def run_micro_batch(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward of one micro-batch; its detached loss, divided by their number."""
        # Without num_items_in_batch: releases of transformers that do not read loss_is_scaled_for_ga yet would take the
        # loss of a model whose forward accepts keywords for divided already.
        return super().training_step(model, inputs)
