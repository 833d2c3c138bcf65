"""Stage 2: the classifier alone, on top of the frozen backbone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import default_data_collator
from transformers.trainer_utils import TrainOutput

from ..data.counts import labels_of
from ..data.samplers import SAMPLING_SCHEMES, ClassSampler
from ..losses import Target
from ..models import fold_classifier, installed_head
from .arguments import ClassifierTrainingArguments
from .base import LongTailedTrainer
from .checks import check_trainer
from .feature_cache import CachedFeatures, cache_features
from .frozen import FrozenBackbone, batch_norms, keep_still, reinitialize
from .rules import RULES, ClosedRule, Rule, RuleStep, build_rule


class ClassifierTrainer(LongTailedTrainer):
    """Retrains the classifier on a frozen backbone by one of the `RULES`; see there for what each does.

    The default, ``rule="adversarial"``, is CC-SAM's second stage: L = (1 − t/T) L_S + (t/T) L_A on class-balanced
    batches (class uniform, then sample uniform within the class; an epoch draws as many samples as the set has).
    Frozen means the backbone's parameters, its BatchNorm statistics (unless ``shift_batch_norm``), and its dropout,
    which is off. Rules in closed form set the classifier without a step; ``train`` then returns at once.

    ``cache_features`` computes z once and trains on the cache, which must see the same images: without augmentation
    the result is that of training without a cache.

    Afterwards the classifier is one linear layer again (a cosine one stays so), except with ``rule="disalign"``. A
    checkpoint in the middle of ``rule="lws"`` or ``"mislas"`` has the factors apart, for `load_with_head`.
    """

    role = "stage2"
    arguments_class = ClassifierTrainingArguments
    averages_backbone = False

    def __init__(self, *trainer_arguments: Any, **trainer_options: Any) -> None:
        super().__init__(*trainer_arguments, **trainer_options)
        self._frozen: FrozenBackbone | None = None
        self._cache: CachedFeatures | None = None
        self.rule: Rule

    # ---- before the first step -------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        rule = build_rule(self.args)
        if isinstance(rule, ClosedRule):
            return self._solve(rule, bool(resume_from_checkpoint))
        if self.args.max_steps <= 0 and self.args.num_train_epochs <= 0:
            raise ValueError(
                f"num_train_epochs={self.args.num_train_epochs:g} would leave stage 1 as it is and call "
                "it stage 2: train at least one epoch, or leave stage 2 out."
            )
        if self.model_init is None:
            # Here already, because a checkpoint is read into the model before the first call of `resolve`.
            self._install_head(rule)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def resolve(self) -> None:
        self.rule = build_rule(self.args)
        self._install_head(self.rule)
        super().resolve()
        if self.head.kind not in self.rule.accepts:
            raise ValueError(
                f"rule={self.args.rule!r} does not retrain a classifier of kind {self.head.kind!r}: turn it into a "
                f"linear one by fold_classifier(model) first{_alternatives(self.head.kind)}."
            )
        if self.args.shift_batch_norm and not batch_norms(self.model):
            raise ValueError("shift_batch_norm has no effect: the model has no BatchNorm; leave it out.")
        self.rule.prepare(self.loss, self._known_counts())
        if self.args.reinitialize_classifier and not self._resuming:
            reinitialize(self.head.module, self.args.seed)
        if self.args.spectral_norm and self.head.kind != "linear":
            raise ValueError(f"spectral_norm: a {self.head.kind!r} classifier has a scale of its own; leave it out.")
        self.start_spectral_norm([self.head.module])
        self._frozen = self._frozen or FrozenBackbone()
        self._frozen.add(self.model, self.rule.trained(self.head.module))
        self.start_averaging()
        self._cache = self._fill_cache(self.args.cached_views) if self.args.cache_features else None

    def _check_dataset(self) -> None:
        if isinstance(self.train_dataset, IterableDataset):
            raise ValueError(
                "Class-balanced batches need a dataset with random access: load the training set without streaming."
            )
        super()._check_dataset()
        if self.args.train_sampling_strategy != "random":
            raise ValueError(
                f"train_sampling_strategy={self.args.train_sampling_strategy!r} would replace the order of stage 2: "
                "leave it out, and choose the order by sampling."
            )

    def _install_head(self, rule: Rule) -> None:
        """Put the classifier that the rule trains in the place of the linear one, unless it is there."""
        if rule.head_kind is None:
            return
        self._check_dataset()
        check_trainer(self)
        head = self._find_head()
        if head.kind == "linear":
            self._replace_head(rule.head_kind, head)

    def training_prior(self) -> str | None:
        plain = self.args.loss == "cross_entropy" and self.loss.weighting is None
        return self.rule.prior(self.sampling) if plain else None

    def _release(self) -> None:
        if self._frozen is not None:
            self._frozen.release()
        self._frozen, self._cache = None, None
        super()._release()
        found = installed_head(self.model)
        if found is not None and found[1].kind == "lws":
            fold_classifier(self.model)

    @property
    def sampling(self) -> str:
        """The scheme of this run: the user's, else the rule's own."""
        return self.rule.sampling if self.args.sampling is None else self.args.sampling

    def _make_sampler(self, dataset: Any) -> ClassSampler:
        epochs = None
        if self.sampling in SAMPLING_SCHEMES and SAMPLING_SCHEMES[self.sampling].reads_epochs:
            if self.args.max_steps > 0:
                raise ValueError(f"sampling={self.sampling!r} needs num_train_epochs: leave max_steps out.")
            epochs = math.ceil(self.args.num_train_epochs)
        labels = self.training_labels() if dataset is self.train_dataset else labels_of(dataset, self.label_column)
        return ClassSampler(labels, self.sampling, self.sampling_seed, epochs=epochs, beta=self.args.sampling_beta)

    def get_train_dataloader(self) -> DataLoader:
        self.resolve()
        return self._get_dataloader(
            dataset=self.train_dataset if self._cache is None else self._cache,
            description="Training",
            batch_size=self._train_batch_size,
            sampler_fn=self._get_train_sampler,
            is_training=True,
        )

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        if self._cache is not None and description == "Training":
            # The user's collator may know images or tokens only, and no model names a column of features. The labels
            # were checked when the cache was filled.
            return default_data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    def _fill_cache(self, views: int, augmented: bool = True) -> CachedFeatures:
        def features_of(batch: dict[str, Any]) -> Tensor:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            with self.accelerator.autocast():
                self.model(**inputs)
            return self.features

        self.model.eval()
        return cache_features(
            self.train_dataset,
            views,
            self.sampling_seed,
            features_of,
            self.accelerator,
            augmented,
            progress_bar=not self.args.disable_tqdm,
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.checked_collator(self._get_collator_with_removed_columns(self.data_collator)),
            num_workers=self.args.dataloader_num_workers,
        )

    # ---- without steps ----------------------------------------------------------------------------------------------

    def _solve(self, rule: ClosedRule, resuming: bool) -> TrainOutput:
        if resuming:
            raise ValueError(f"rule={self.args.rule!r} has no steps to resume: leave resume_from_checkpoint out.")
        if self.model_init is not None:
            raise ValueError(f"rule={self.args.rule!r} needs the trained model: pass model= instead of model_init=.")
        self._resuming = False
        try:
            self.resolve()
            assert isinstance(self.head.module, nn.Linear)
            rule.solve(self.head.module, self._training_features)
        finally:
            self._release()
        return TrainOutput(self.state.global_step, 0.0, {})

    def _training_features(self) -> tuple[Tensor, Tensor]:
        """z [N, D] and labels [N] of the training images as evaluation sees them."""
        cache = self._fill_cache(1, augmented=False)
        return cache.features[0], torch.from_numpy(cache.labels)

    # ---- the step -------------------------------------------------------------------------------------------------

    def training_loss(self, model: nn.Module, inputs: dict[str, Any], labels: Tensor) -> Tensor:
        features, logits = self.classify(model, inputs)
        return self.rule.objective(
            RuleStep(
                loss=self.sample_loss(logits, Target(labels)),
                features=features,
                logits=logits,
                head=self.head.module,
                classify=self._head_logits,
                epoch=self.epoch,
                num_epochs=self.state.num_train_epochs,
                log=self.scalars.add,
                generator=self.draw_generator,
            )
        )

    def classify(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Features z [B, D] and logits [B, C], from the cache or from the model with everything frozen."""
        if self._cache is not None:
            return inputs["features"], self._head_logits(inputs["features"])
        # The power iteration of a normalised spectrum goes on in training mode only.
        keep_still(model, [self.head.module] if self.args.spectral_norm else [], self.args.shift_batch_norm)
        _, logits = self.forward(model, inputs)
        return self.features, logits

    def _head_logits(self, features: Tensor) -> Tensor:
        # Not by calling the module, whose hook would take these features for those of the batch.
        with self.accelerator.autocast():
            return self.head.module.forward(features).float()

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


def _alternatives(kind: str) -> str:
    rules = [name for name, rule in RULES.items() if kind in rule.accepts and rule.head_kind is None]
    return f", or choose one of {', '.join(rules)}" if rules else ""
