"""Stage 2 of CC-SAM: the classifier alone, on class-balanced batches of adversarial features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from ..data.counts import labels_of
from ..data.samplers import ClassSampler
from ..losses import Target
from .adversarial import adversarial_features, progressive_weight, relative_scale
from .arguments import ClassifierTrainingArguments, refuse_without_effect
from .base import LongTailedTrainer
from .feature_cache import CachedFeatures, cache_features
from .sample_loss import SampleLoss, without_labels

RULES = ("adversarial", "crt")
SCHEDULES = ("progressive", "progressive_from_one")
ADVERSARIAL_OPTIONS = ["adversarial_scale", "relative_adversarial_scale", "adversarial_schedule"]
DEFAULT_RELATIVE_SCALE = 0.1


class ClassifierTrainer(LongTailedTrainer):
    """Retrains the classifier on a frozen backbone: L = (1 − t/T) L_S + (t/T) L_A (Eq. 14 of Zhou et al., CVPR 2023).

    L_S is the loss on class-balanced batches (class uniform, then sample uniform within the class; an epoch draws
    as many samples as the set has), L_A the loss at the adversarial features z + λ ∇_z l/‖∇_z l‖ (Eq. 12), T the
    number of epochs and t the epoch. ``rule="crt"`` is the special case λ = 0, classifier retraining (Kang et al.,
    ICLR 2020). Frozen means the backbone's parameters, its BatchNorm statistics, and its dropout, which is off.

    ``cache_features`` computes z once and trains on the cache, which must see the same images: without augmentation
    the result is that of training without a cache.
    """

    arguments_class = ClassifierTrainingArguments

    def __init__(self, *trainer_arguments: Any, **trainer_options: Any) -> None:
        super().__init__(*trainer_arguments, **trainer_options)
        self._frozen: list[nn.Parameter] = []
        self._cache: CachedFeatures | None = None

    # ---- before the first step -------------------------------------------------------------------------------------

    def resolve(self) -> None:
        _check_rule(self.args)
        if isinstance(self.train_dataset, IterableDataset):
            raise ValueError(
                "Class-balanced batches need a dataset with random access: load the training set without streaming."
            )
        super().resolve()
        if self.args.reinitialize_classifier and not self._resuming:
            self._reinitialize()
        self._freeze()
        self._cache = self._fill_cache() if self.args.cache_features else None

    def training_prior(self) -> str | None:
        return "uniform" if self.args.loss == "cross_entropy" and self.loss.weighting is None else None

    def _reinitialize(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.args.seed)
            fresh = nn.Linear(self.head.module.in_features, self.head.module.out_features)
        with torch.no_grad():
            self.head.module.weight.copy_(fresh.weight)
            if self.head.module.bias is not None:
                self.head.module.bias.zero_()

    def _freeze(self) -> None:
        head = {id(p) for p in self.head.module.parameters()}
        self._frozen += [p for p in self.model.parameters() if id(p) not in head and p.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)

    def _release(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen, self._cache = [], None
        super()._release()

    def _make_sampler(self, dataset: Any) -> ClassSampler:
        return ClassSampler(labels_of(dataset, self.args.label_column), "class", self.sampling_seed)

    def get_train_dataloader(self) -> DataLoader:
        self.resolve()
        return self._get_dataloader(
            dataset=self.train_dataset if self._cache is None else self._cache,
            description="Training",
            batch_size=self._train_batch_size,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _fill_cache(self) -> CachedFeatures:
        def features_of(batch: dict[str, Any]) -> Tensor:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            with self.accelerator.autocast():
                self.model(**inputs)
            return self.features

        self.model.eval()
        return cache_features(
            self.train_dataset,
            self.args.cached_views,
            self.sampling_seed,
            features_of,
            self.accelerator,
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )

    # ---- the step -------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        inputs, labels = without_labels(inputs)
        if not model.training:
            value, outputs = self.evaluation_loss(model, inputs, labels)
            return (value, outputs) if return_outputs else value
        features, logits = self.classify(model, inputs)
        loss = self.sample_loss(logits, Target(labels))
        if self.args.rule == "crt":
            return loss.mean(logits)
        return self.combine(loss, logits, self._head_logits(self.adversarial(loss, features, logits)))

    def classify(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Features z [B, D] and logits [B, C], from the cache or from the model with everything frozen."""
        if self._cache is not None:
            return inputs["features"], self._head_logits(inputs["features"])
        # Frozen also means evaluation mode: BatchNorm uses its stored statistics and dropout is off.
        model.eval()
        _, logits = self.forward(model, inputs)
        return self.features, logits

    def _head_logits(self, features: Tensor) -> Tensor:
        head = self.head.module
        with self.accelerator.autocast():
            return F.linear(features, head.weight, head.bias).float()

    def adversarial(self, loss: SampleLoss, features: Tensor, logits: Tensor) -> Tensor:
        """The adversarial features of a batch, [B, D]."""
        delta = loss.logit_gradient(logits)
        features = features.detach().to(delta.dtype)
        scale: Tensor | float
        if self.args.adversarial_scale is not None:
            scale = self.args.adversarial_scale
        else:
            share = self.args.relative_adversarial_scale
            scale = relative_scale(features, DEFAULT_RELATIVE_SCALE if share is None else share)
        return adversarial_features(features, delta @ self.head.module.weight.detach().to(delta.dtype), scale)

    def combine(self, loss: SampleLoss, logits: Tensor, adversarial_logits: Tensor) -> Tensor:
        """(1 − t/T) · L_S + (t/T) · L_A (Eq. 14)."""
        clean, adversarial = loss.mean(logits), loss.mean(adversarial_logits)
        self.scalars.add(loss_clean=clean, loss_adversarial=adversarial)
        from_one = self.args.adversarial_schedule == "progressive_from_one"
        weight = progressive_weight(self.epoch, self.state.num_train_epochs, from_one)
        return (1 - weight) * clean + weight * adversarial

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        if self._cache is not None and self.accelerator.sync_gradients and self.accelerator.num_processes > 1:
            self._average_gradients()
        return loss

    def _average_gradients(self) -> None:
        # A cached batch never passes through DDP's forward, so DDP does not know that there are gradients to average.
        for parameter in self.head.module.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(self.accelerator.reduce(parameter.grad, reduction="mean"))


def _check_rule(args: ClassifierTrainingArguments) -> None:
    if args.rule not in RULES:
        raise ValueError(f"rule={args.rule!r} is not known; choose one of {', '.join(RULES)}.")
    if args.adversarial_schedule not in SCHEDULES:
        raise ValueError(
            f"adversarial_schedule={args.adversarial_schedule!r} is not known; choose one of {', '.join(SCHEDULES)}."
        )
    if args.rule == "crt":
        refuse_without_effect(args, ADVERSARIAL_OPTIONS, "with rule='crt'")
    if args.adversarial_scale is not None and args.relative_adversarial_scale is not None:
        raise ValueError("Set adversarial_scale or relative_adversarial_scale, not both.")
    for name in ("adversarial_scale", "relative_adversarial_scale"):
        value = getattr(args, name)
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}.")
