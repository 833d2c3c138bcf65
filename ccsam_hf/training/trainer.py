"""Stage 1 of CC-SAM: backbone and classifier under class-conditional weight perturbations."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..losses import REDUCTIONS, Target
from .arguments import CCSAMTrainingArguments
from .base import LongTailedTrainer
from .checks import check_trainer
from .meters import PerturbationMeter
from .mixup import mixup
from .running import RunningUnit
from .spectral import normalizable
from .steps import Engine, PerturbationPlan, build_engine, resolve_plan
from .steps.context import StepContext
from .steps.lengths import GroupLengths

TITLES = {
    "none": "plain training",
    "ccsam": "CC-SAM",
    "sam": "SAM",
    "imbsam": "ImbSAM",
    "focal_sam": "Focal-SAM",
    "gradient_norm_penalty": "gradient-norm penalty",
    "random_model": "random model perturbation",
}
# Trained on instance-balanced batches, these losses leave logits of the training or of a uniform prior.
PRIOR_OF_LOSS = {
    "cross_entropy": "train",
    "focal": "train",
    "label_smoothing": "train",
    "balanced_softmax": "uniform",
    "lade": "uniform",
}


class CCSAMTrainer(LongTailedTrainer):
    """Trains (1 − a) · L + a · L_perturbed, where the loss of each class sees weights moved along its own gradient.

    L_perturbed averages l_i(w + ε_{y_i}) with ε_c = √k ρ_c g_c/‖g_c‖ (Eq. 8 and 9 of Zhou et al., CVPR 2023) on the
    classifier. The perturbed logits of all classes are computed in closed form: one forward and one backward pass
    whatever the number of classes. Other layers (``perturbed_layers``), partitions of the batch (``partition``), rules
    and directions make the relatives of CC-SAM, some by name (``perturbation``: sam, imbsam, focal_sam, ...). With
    ``flat_weight`` 0 or a radius of 0 the run is plain training, bit for bit.

    The logged ``loss`` is the objective; ``loss_clean`` and ``loss_perturbed`` are its parts, ``radius_many`` etc. the
    mean ‖ε_c‖/‖w‖ of the classes, see `PerturbationMeter`, ``logit_shift`` (closed form) how far the true class's
    logit is lowered on average. ``evaluate`` reports the unperturbed loss.
    """

    arguments_class = CCSAMTrainingArguments

    def __init__(self, *trainer_arguments: Any, **trainer_options: Any) -> None:
        super().__init__(*trainer_arguments, **trainer_options)
        self.add_callback(RunningUnit())
        self._plan: PerturbationPlan | None = None
        self._engine: Engine | None = None

    @property
    def running_unit(self) -> RunningUnit:
        # Looked up, because Trainer replaces the callback when it restores callback states from a checkpoint.
        return next(c for c in self.callback_handler.callbacks if isinstance(c, RunningUnit))

    @property
    def method_title(self) -> str:
        return TITLES.get(self.args.perturbation, self.args.perturbation)

    # ---- before the first step -------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        if self.model_init is None:
            # Here already, because a checkpoint is read into the model before the first call of `resolve`.
            self._install_classifier()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _install_classifier(self) -> None:
        """Put the classifier that ``args.classifier`` names in the place of the linear one, unless it is there."""
        self._check_dataset()
        check_trainer(self)
        head = self._find_head()
        wanted = self.args.classifier
        if head.kind == "linear" and wanted != "linear":
            self._replace_head(wanted, head, **self.args.classifier_options())
        elif "linear" not in (wanted, head.kind) and head.kind != wanted:
            raise ValueError(
                f"classifier={wanted!r}, but the model's is of kind {head.kind!r} already: leave classifier out, or "
                "fold_classifier(model) first."
            )

    def resolve(self) -> None:
        plan = resolve_plan(self.args)
        self._install_classifier()
        super().resolve()
        self._check_loss()
        if self.args.spectral_norm and plan is not None and not plan.closed_form:
            raise ValueError(
                "spectral_norm changes with every pass the weights that a perturbed pass moves: choose "
                "perturbed_layers='classifier' or perturbation='none'."
            )
        self.start_spectral_norm(normalizable(self.model, self.head.module))
        self.start_averaging()
        counts = self._known_counts()
        self.running_unit.reset(self.args.radius_momentum, self.args.device)
        self.radii = PerturbationMeter(counts, self.args.shots())
        self._plan, self._engine = plan, None
        if plan is not None:
            if self.args.max_steps <= 0 and plan.schedule.start >= self.args.num_train_epochs:
                raise ValueError(
                    f"radius_start={plan.schedule.start:g} is not reached in {self.args.num_train_epochs:g} epochs: "
                    "nothing would be perturbed; lower it."
                )
            self._check_processes(plan)
            plan.partition.check(counts)
            self._lengths = GroupLengths(plan, self.running_unit, self.radii, counts.numel())
            self._engine = build_engine(
                plan,
                self._lengths,
                self.model,
                self.head,
                self.accelerator.mixed_precision,
                self.args.gradient_checkpointing,
            )

    def training_prior(self) -> str | None:
        if self.args.class_reduction != "sample" or self.loss.weighting is not None:
            return None
        return PRIOR_OF_LOSS.get(self.args.loss)

    def _check_loss(self) -> None:
        if self.args.class_reduction not in REDUCTIONS:
            raise ValueError(
                f"unknown class_reduction {self.args.class_reduction!r}; choose from {', '.join(REDUCTIONS)}"
            )
        if self.args.mixup_alpha > 0 and not self.loss.supports_mixed_targets:
            raise ValueError(f"loss={self.args.loss!r} has no mixed form: set mixup_alpha to 0 or choose another loss.")

    def _check_processes(self, plan: PerturbationPlan) -> None:
        if plan.sync and self.loss.couples_batch:
            raise ValueError(
                f"perturbation_sync cannot join the regulariser of loss={self.args.loss!r}; switch it off."
            )
        if plan.gradient_norm == "unbiased" and self.accelerator.num_processes > 1 and not plan.sync:
            raise ValueError(
                "gradient_norm='unbiased' on several processes needs perturbation_sync=True: each would remember "
                "other norms."
            )

    # ---- the step -------------------------------------------------------------------------------------------------

    def training_loss(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Tensor:
        inputs, target = self.mix(inputs, labels)
        engine = self._active_engine()
        if engine is None:
            _, logits = self.forward(model, inputs)
            return self.sample_loss(logits, target, self.args.class_reduction).mean(logits)
        return engine.loss(self._context(model, inputs, target))

    def run_micro_batch(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        engine = self._active_engine()
        if engine is None or not engine.runs_backward:
            return super().run_micro_batch(model, inputs, *args, **kwargs)
        model.train()
        loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss / self.current_gradient_accumulation_steps

    def _active_engine(self) -> Engine | None:
        """The run's engine, unless its schedule leaves the weights alone at present."""
        if self._plan is None:
            return None
        self._lengths.factor = self._plan.schedule.factor(float(self.state.epoch or 0))
        return self._engine if self._lengths.factor > 0 else None

    def mix(self, inputs: dict[str, Any], labels: Tensor) -> tuple[dict[str, Any], Target]:
        """Mixup where asked for, drawn by (seed, step, place of the micro-batch in the step)."""
        if self.args.mixup_alpha == 0:
            return inputs, Target(labels)
        images = inputs[self.model.main_input_name]
        if not images.is_floating_point():
            raise ValueError("mixup_alpha needs floating-point inputs such as images; set it to 0 for token ids.")
        mixed, target = mixup(images, labels, self.args.mixup_alpha, self.draw_key())
        return {**inputs, self.model.main_input_name: mixed}, target

    def _context(self, model: nn.Module, inputs: dict[str, Any], target: Target) -> StepContext:
        return StepContext(
            inputs=inputs,
            target=target,
            class_counts=self._known_counts(),
            model=self.model,
            forward=lambda given: self.forward(model, given)[1],
            loss_of=lambda logits, wanted: self.sample_loss(logits, wanted, self.args.class_reduction),
            features=lambda: self.features,
            no_sync=lambda: self.accelerator.no_sync(model),
            backward=lambda loss: self.accelerator.backward(loss / self.current_gradient_accumulation_steps),
            reduce=self.sum_over_processes,
            gather=self.accelerator.gather,
            report=self.scalars.add,
            generator=self.draw_generator,
            processes=self.accelerator.num_processes,
        )

    def end_accumulation(self) -> None:
        if self._plan is not None and self._plan.shares_mean and self._lengths.factor > 0:
            self.running_unit.fold(self.sum_over_processes)

    def step_report(self) -> dict[str, float]:
        return {**super().step_report(), **self.radii.report(self.sum_over_processes)}
