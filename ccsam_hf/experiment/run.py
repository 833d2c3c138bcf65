"""One benchmark, from its images to a model folder with the figures that belong to it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from ..data import Benchmark, ImageViews, class_report
from ..evaluation import Evaluation, EvaluationOptions, evaluate_model
from ..evaluation.plots import draw_figures
from ..hub import device_name, log_summary
from ..models import replace_classifier
from ..training import LongTailedTrainer, default_options
from .checks import check_ahead, check_folder, check_same, check_settings
from .described import write_settings
from .network import network_views, new_network, saved_network, train_only
from .options import OWN_IMAGES
from .outputs import save_outputs
from .parsing import Settings
from .report import distribution_line, evaluated_on
from .smoke_data import write_smoke_data
from .stages import Result, Stage, resuming, stages_of

# Of a stage's log, spread over its epochs; cards show fewer.
LOG_ROWS = 40


def run_experiment(settings: Settings) -> dict[str, Any]:
    """Control (if asked for), stage 1 and stage 2 on one benchmark; returns the figures of each by its name.

    ``output_dir`` receives a folder for each stage (its checkpoints, and ``model/``, the network it ended with beside
    its figures), ``model/`` (the last stage's network with its preprocessing and card, loadable by timm, transformers
    and `load_classifier`, beside its metrics, per-class CSV and figures), ``metrics.json``, ``settings.yaml`` (which
    ``--config`` reads) and ``groups.png``, which shows the stages side by side. Every figure is that of the last
    epoch. With ``--resume_from_checkpoint true`` finished stages are not repeated and the interrupted one goes on from
    its last checkpoint.

    Raises:
        ValueError: settings or data that make no sense, before anything is trained.
    """
    check_settings(settings)
    check_folder(settings, stages_of(settings))
    data = load_data(settings)
    settings = with_thresholds(settings, data)
    check_same(settings)
    return Experiment(settings, data).run()


def load_data(settings: Settings) -> Benchmark:
    """The images, generated for ``--smoke``; the first process prepares what the others then find."""
    with settings.stage1.main_process_first(local=False, desc="data"):
        options = settings.benchmark
        if settings.smoke and options.data_dir == str(settings.folder / "images") and settings.stage1.should_save:
            write_smoke_data(options.benchmark, settings.folder / "images")
        return options.load()


def with_thresholds(settings: Settings, data: Benchmark) -> Settings:
    """The benchmark's own shot thresholds, where the user has not set others."""
    wanted = data.record.thresholds
    own: dict[str, Any] = {"many_shot": wanted.many, "few_shot": wanted.few, "shot_boundaries": wanted.boundaries}
    usual = default_options(settings.stage1, list(own))
    changed = {name: value for name, value in own.items() if getattr(settings.stage1, name) == usual[name]}
    return replace(settings, stage1=replace(settings.stage1, **changed), stage2=replace(settings.stage2, **changed))


class Experiment:
    """The stages of one run on loaded data."""

    def __init__(self, settings: Settings, data: Benchmark) -> None:
        self.settings, self.data = settings, data
        self.stages = stages_of(settings)
        self.speaks = settings.stage1.should_save
        self.network = self._first_network()
        self._views: dict[int, ImageViews] = {}

    def run(self) -> dict[str, Any]:
        """All stages that are not finished, then what the run leaves."""
        self._announce()
        # Before the later stages are checked, whose message would blame the stage for a wrong --augmentation.
        self._views_of(self.stages[0].args.seed)
        check_ahead(self.stages, self.network, self.trainer)
        if self.speaks:
            write_settings(self.settings)
            for stage in self.stages:
                if not resuming(self.settings.stage1):
                    stage.forget()
        done = {self._title(stage): (stage, self._result(stage)) for stage in self.stages}
        if self.speaks:
            save_outputs(self.settings, self.data, done)
        self.settings.stage1.distributed_state.wait_for_everyone()
        return {name: result.metrics["closed_set"] for name, (_, result) in done.items()}

    def trainer(self, stage: Stage, network: PreTrainedModel) -> LongTailedTrainer:
        """The trainer of a stage on this data."""
        views = self._views_of(stage.args.seed)
        return stage.trainer(
            model=network,
            args=stage.args,
            train_dataset=views.train,
            eval_dataset=views.validation if self.settings.benchmark.holdout else views.test,
            class_counts=self.data.class_counts,
        )

    def _result(self, stage: Stage) -> Result:
        """What a stage finds: from its folder when it was finished before, else by training it."""
        found = stage.result() if resuming(self.settings.stage1) else None
        if found is not None:
            self._say(f"{stage.name}: finished before, not repeated")
            return found
        if stage.fresh:
            network = self._first_network()
        else:
            # From its files, so that a run resumed here equals one that went through.
            network = saved_network(self.stages[self.stages.index(stage) - 1].model_folder)
        checkpoint = stage.last_checkpoint() if resuming(self.settings.stage1) else None
        self._say(f"{stage.name}: training" + (f" from {checkpoint}" if checkpoint else ""))
        trainer = self.trainer(stage, network)
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.perf_counter() - started
        evaluation = self._evaluate(stage, trainer)
        log = list(log_summary(trainer.state.log_history, LOG_ROWS))
        resumed = None if checkpoint is None else checkpoint.rpartition("/")[2]
        result = Result(evaluation.metrics, seconds, device_name(trainer.args.device), resumed, log)
        if self.speaks:
            self._save(stage, trainer, evaluation, result)
        trainer.accelerator.wait_for_everyone()
        return result

    def _evaluate(self, stage: Stage, trainer: LongTailedTrainer) -> Evaluation:
        args, holdout = stage.args, self.settings.benchmark.holdout
        return evaluate_model(
            trainer.model,
            trainer.eval_dataset,
            label_names=self.data.label_names,
            class_counts=self.data.class_counts,
            accelerator=trainer.accelerator,
            options=EvaluationOptions(
                thresholds=args.shots(),
                batch_size=args.per_device_eval_batch_size,
                num_workers=args.dataloader_num_workers,
                progress=not args.disable_tqdm,
            ),
            about={
                "benchmark": self.data.record.name,
                "stage": self._title(stage),
                "split": "hold-out of the training set" if holdout else "test",
                "checkpoint": "last epoch",
                "data": dict(self.data.settings),
            },
        )

    def _save(self, stage: Stage, trainer: LongTailedTrainer, evaluation: Evaluation, result: Result) -> None:
        trainer.model.save_pretrained(stage.model_folder)
        evaluation.save(stage.model_folder)
        if stage is self.stages[-1]:
            draw_figures(evaluation, stage.model_folder / "figures")
        stage.finish(result)

    def _first_network(self) -> PreTrainedModel:
        options, args = self.settings.benchmark, self.settings.stage1
        network = new_network(options, self.data, args.seed)
        if args.classifier != "linear":
            # Here, not by the trainer, so that the later stages are checked against the classifier they will find.
            replace_classifier(network, args.classifier, **args.classifier_options())
        train_only(network, options.trainable_layers)
        return network

    def _views_of(self, seed: int) -> ImageViews:
        if seed not in self._views:
            options = self.settings.benchmark
            device = self.settings.stage1.device if options.data_on_device else None
            self._views[seed] = network_views(self.data, self.network, options.augmentation, seed, device)
        return self._views[seed]

    def _announce(self) -> None:
        data, options = self.data, self.settings.benchmark
        if options.benchmark == OWN_IMAGES:
            self._say(class_report(data, thresholds=self.settings.stage1.shots()))
        else:
            groups = self.settings.stage1.shots().masks(data.class_counts)
            self._say(f"{data.record.title}: {distribution_line(data.class_counts, groups)}")
        self._say(f"Evaluated on {evaluated_on(data, options.holdout)}")

    def _title(self, stage: Stage) -> str:
        """The name in tables: of the control what it trains, "CE" for cross entropy."""
        if stage.role != "control":
            return stage.name
        return "CE" if self.settings.stage1.loss == "cross_entropy" else f"{self.settings.stage1.loss}"

    def _say(self, text: str) -> None:
        if self.speaks:
            print(text, flush=True)
