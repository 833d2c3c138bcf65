"""fp16 with a gradient scaler. On a CPU the trainer is given torch's CPU scaler, and autocast to fp16 where wanted.

Scaling by a power of two rounds nothing, so that a scaled step in float32 must equal the unscaled one bit for bit: any
gradient that a step uses for itself (class gradients, directions, penalties) and that still had the scale in it would
show.
"""

import math

import pytest
import torch
from accelerate import AutocastKwargs
from transformers import TrainerCallback

from ccsam_hf.training import CCSAMTrainer

GPU = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.device_count() != 1,
    reason="needs one visible CUDA device (CUDA_VISIBLE_DEVICES=0)",
)
SCALE = 2.0**16
STEPS = {
    "plain": {"perturbation": "none"},
    "classifier as printed": {"radius_scale": 0.05, "flat_weight": 0.6},
    "classifier, unbiased norms": {"relative_radius": 0.05, "gradient_norm": "unbiased"},
    "classifier, classes": {"relative_radius": 0.05, "class_reduction": "class", "feature_gradient": "clean"},
    "cosine classifier": {"radius_scale": 0.05, "classifier": "cosine", "classifier_args": {"scale": 8.0}},
    "coupled loss": {"radius_scale": 0.05, "loss": "lade"},
    "class copies": {"radius_scale": 0.02, "perturbed_layers": "all", "flat_weight": 0.6},
    "bounded copies of norms": {"radius_scale": 0.02, "perturbed_layers": "norm_affine", "max_copies": 2},
    "SAM": {"perturbation": "sam", "radius": 0.2, "flat_weight": 0.6},
    "adaptive SAM": {"perturbation": "sam", "radius": 0.2, "adaptive": True},
    "layerwise SAM": {"perturbation": "sam", "radius": 0.05, "layerwise": True},
    "ImbSAM": {"perturbation": "imbsam", "head_threshold": 5},
    "Focal-SAM": {"perturbation": "focal_sam"},
    "groups in turn": {"radius_scale": 0.02, "partition": "quantiles", "partition_groups": 2,
                       "perturbed_layers": "all", "perturbed_statistics": "batch"},
    "penalty": {"perturbation": "gradient_norm_penalty"},
    "accumulation": {"radius_scale": 0.05, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    "groups, accumulation": {"perturbation": "imbsam", "head_threshold": 5, "gradient_accumulation_steps": 2},
    "stage 2": {"stage": 2},
    "stage 2, released": {"stage": 2, "rule": "adversarial_released"},
    "stage 2, flat": {"stage": 2, "rule": "crt_flat", "cache_features": True},
}  # fmt: skip


def scaled(trainer, scale: float = SCALE, half: bool = False, **options):
    """The trainer with a gradient scaler, whose forward passes are autocast to fp16 if ``half``."""
    accelerator = trainer.accelerator
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, **options)
    if trainer.args.fp16:
        accelerator.native_amp = True
        accelerator.autocast_handler = AutocastKwargs(enabled=half)
    else:
        assert not half
    return trainer


def equal(toy, a, b) -> None:
    for name, value in toy.weights(a).items():
        assert torch.equal(toy.weights(b)[name], value), name


class Watch(TrainerCallback):
    """Weights, scale and what the radius remembers after every step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.scales: list[float] = []
        self.memory: list[tuple[float, list[float]]] = []

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        self.weights.append({name: value.detach().clone() for name, value in model.state_dict().items()})
        self.scales.append(self.trainer.accelerator.scaler.get_scale())
        if isinstance(self.trainer, CCSAMTrainer):
            unit = self.trainer.running_unit
            norms = [] if unit.norms is None else torch.cat([v.flatten() for v in vars(unit.norms).values()]).tolist()
            self.memory.append((unit.mean.item(), norms))


def watched(trainer) -> Watch:
    watch = Watch()
    watch.trainer = trainer
    trainer.add_callback(watch)
    return watch


@pytest.mark.parametrize("case", STEPS)
def test_the_scale_of_the_loss_changes_nothing(toy, tmp_path, case) -> None:
    options = {"num_train_epochs": 1, "logging_steps": 1, **STEPS[case]}
    plain = toy.trainer(tmp_path, **options)
    plain.train()
    other = scaled(toy.trainer(tmp_path, **options))
    watch = watched(other)
    other.train()
    assert set(watch.scales) == {SCALE}, "a skipped step would prove nothing"
    equal(toy, plain, other)
    for mine, theirs in zip(other.state.log_history[:-1], plain.state.log_history[:-1], strict=True):
        for name in theirs:
            if name.startswith(("loss", "radius")):
                assert mine[name] == theirs[name], name


@pytest.mark.parametrize("options", [{"radius_scale": 0.05}, {"stage": 2}], ids=["stage 1", "stage 2"])
def test_gradients_are_clipped_without_their_scale(toy, tmp_path, options) -> None:
    options = {"num_train_epochs": 1, "max_grad_norm": 0.1, "logging_steps": 1, **options}
    plain = toy.trainer(tmp_path, **options)
    plain.train()
    # Autocast is off inside: only a trainer in fp16 takes the scale out before it clips.
    other = scaled(toy.trainer(tmp_path, fp16=True, **options))
    other.train()
    equal(toy, plain, other)
    norms = [[log["grad_norm"] for log in t.state.log_history if "grad_norm" in log] for t in (plain, other)]
    assert norms[0] == norms[1]
    assert max(norms[0]) > 0.1, "nothing was clipped"


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize("stage", [1, 2])
def test_fp16_stays_as_close_to_float32_as_plain_training_does(toy, tmp_path, kind, stage) -> None:
    perturbed = {"relative_radius": 0.05} if stage == 1 else {"adversarial_schedule": "progressive_from_one"}
    plain = {"perturbation": "none"} if stage == 1 else {"rule": "crt"}

    def distance(options):
        """‖difference of the two precisions‖ / ‖way travelled‖ over all weights."""
        runs = []
        for half in (False, True):
            trainer = toy.trainer(tmp_path, stage=stage, model=kind, max_steps=1, fp16=half, **options)
            if half:
                watch = watched(scaled(trainer, 2.0**8, half=True))
            start = torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()
            trainer.train()
            runs.append(torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach() - start)
        assert set(watch.scales) == {2.0**8}, "no step may have been left out"
        full, half = runs
        return ((half - full).norm() / full.norm()).item()

    reference, actual = distance(plain), distance(perturbed)
    assert 0 < reference < 0.2
    assert 0 < actual <= 1.5 * reference


OVERFLOWS = {
    "plain": {"fp16": True, "perturbation": "none"},
    "classifier": {"fp16": True, "relative_radius": 0.05},
    "unbiased norms": {"fp16": True, "relative_radius": 0.05, "gradient_norm": "unbiased"},
    "class copies": {"relative_radius": 0.02, "perturbed_layers": "all"},
    "SAM": {"perturbation": "sam", "flat_weight": 0.5},
    "groups in turn": {"perturbation": "imbsam", "head_threshold": 5},
    "stage 2": {"fp16": True, "stage": 2},
}


@pytest.mark.parametrize("case", OVERFLOWS)
def test_a_step_that_overflows_is_left_out_and_the_next_goes_on(toy, tmp_path, case) -> None:
    options = {"num_train_epochs": 1, "logging_steps": 1, "lr_scheduler_type": "linear", **OVERFLOWS[case]}
    if options.get("stage", 1) == 1 and options.get("perturbation") != "none":
        options |= {"radius_schedule": "step", "radius_ramp": 1.0, "radius_ramp_steps": 2}
    trainer = toy.trainer(tmp_path, **options)
    # 3e38 times a loss above 1.2 is infinite in float32; the scale after it is one that nothing here overflows.
    scaled(trainer, 3e38, half=bool(options.get("fp16")), backoff_factor=2.0**4 / 3e38)
    watch, before = watched(trainer), toy.weights(trainer)
    trainer.train()
    assert watch.scales == pytest.approx([2.0**4] * 4)
    buffers = {name for name, _ in trainer.model.named_buffers()}
    for name, value in watch.weights[0].items():
        if name not in buffers:
            assert torch.equal(value, before[name]), f"{name} moved in the step that was left out"
    trained = {name for name, p in trainer.model.named_parameters() if options.get("stage", 1) == 1 or ".fc." in name}
    still = [name for name in trained if torch.equal(watch.weights[1][name], watch.weights[0][name])]
    assert not still, f"{still} did not move in the next step"
    assert all(value.isfinite().all() for value in watch.weights[-1].values())
    logs = [log for log in trainer.state.log_history if "loss" in log]
    # The norm that Trainer itself reports of the step that was left out is infinite, as in plain training.
    assert all(math.isfinite(value) for log in logs for name, value in log.items() if name != "grad_norm"), logs
    if case == "SAM":
        assert logs[2]["radius_few"] == pytest.approx(2 * logs[0]["radius_few"], rel=0.1), "the schedule goes on"
    rates = [log["learning_rate"] for log in logs]
    assert rates[0] == rates[1] > rates[2] > rates[3], "the scheduler must not count the step that was left out"


def test_statistics_of_a_step_that_overflows_are_those_of_plain_training(toy, tmp_path) -> None:
    runs = []
    for options in ({"perturbation": "none"}, {"relative_radius": 0.05}):
        trainer = toy.trainer(tmp_path, fp16=True, max_steps=1, **options)
        scaled(trainer, 3e38, half=True).train()
        runs.append(trainer)
    equal(toy, *runs)


def test_a_forward_pass_that_overflows_is_not_remembered(toy, tmp_path) -> None:
    """Infinite features spoil the class gradients of their own step only."""
    images = [dict(item) for item in toy.images()]
    trainer = toy.trainer(
        tmp_path, model="vit", fp16=True, relative_radius=0.05, gradient_norm="unbiased", logging_steps=1,
        num_train_epochs=1, train_dataset=images,
    )  # fmt: skip
    scaled(trainer, half=True)
    trainer.resolve()
    second_batch = [int(draw) for draw in trainer._make_sampler(images)][8:16]
    images[second_batch[0]]["pixel_values"] *= 1e6
    watch = watched(trainer)
    trainer.train()
    assert watch.scales == [SCALE, SCALE / 2, SCALE / 2, SCALE / 2], "the second step alone should have been left out"
    assert watch.memory[1] == watch.memory[0]
    assert watch.memory[2] != watch.memory[1]
    assert all(math.isfinite(value) for _, values in watch.memory for value in values)
    assert all(value.isfinite().all() for value in toy.weights(trainer).values())
    for log in trainer.state.log_history[2:-1]:
        assert all(math.isfinite(value) for value in log.values()), log


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == 4:
            raise Killed


@pytest.mark.parametrize("stage", [1, 2])
def test_resumed_with_the_scaler_s_state(toy, tmp_path, stage) -> None:
    own = {"relative_radius": 0.05} if stage == 1 else {}
    options = {"stage": stage, "fp16": True, "save_strategy": "steps", "save_steps": 3, **own}

    def trainer(folder, **more):
        # Grows every two steps: a resumed run that forgot the count would grow at other steps.
        made = toy.trainer(tmp_path / folder, **options, **more)
        return scaled(made, 2.0**10, half=True, growth_interval=2)

    whole = trainer("whole")
    whole.train()
    killed = trainer("killed", callbacks=[KillAt()])
    with pytest.raises(Killed):
        killed.train()
    assert (tmp_path / "killed" / "checkpoint-3" / "scaler.pt").exists()
    resumed = trainer("killed")
    watch = watched(resumed)
    resumed.train(resume_from_checkpoint=True)
    assert watch.scales[0] == 2.0**12, "grown at step 2 and at step 4"
    assert resumed.accelerator.scaler.state_dict() == whole.accelerator.scaler.state_dict()
    equal(toy, whole, resumed)


@pytest.mark.parametrize("options", [{"perturbation": "sam"}, {"perturbed_layers": "all"}], ids=["groups", "copies"])
def test_moved_weights_are_refused_in_fp16(toy, tmp_path, options) -> None:
    trainer = scaled(toy.trainer(tmp_path, fp16=True, **options), half=True)
    with pytest.raises(ValueError, match="perturbed_layers='all' moves weights, which fp16 would round"):
        trainer.train()


@pytest.mark.parametrize("stage", [1, 2])
def test_fp16_without_a_scaler_is_refused(toy, tmp_path, stage) -> None:
    """Accelerate trains in float32 on a CPU, whatever it was told."""
    with pytest.raises(ValueError, match="fp16 has no effect on cpu: leave it out, or use bf16"):
        toy.trainer(tmp_path, stage=stage, fp16=True).train()


@GPU
@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_fp16_on_a_gpu_is_close_to_float32(toy, tmp_path, kind) -> None:
    def distance(**options):
        runs = []
        for half in (False, True):
            trainer = toy.trainer(tmp_path, model=kind, max_steps=3, fp16=half, use_cpu=False, **options)
            assert (trainer.accelerator.scaler is not None) == half
            start = torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach().cpu()
            trainer.train()
            runs.append(torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach().cpu() - start)
        full, half = runs
        return ((half - full).norm() / full.norm()).item()

    plain, perturbed = distance(perturbation="none"), distance(relative_radius=0.05)
    assert 0 < perturbed <= 1.5 * plain


@GPU
@pytest.mark.parametrize("case", ["class copies", "SAM", "groups in turn"])
def test_moved_weights_on_a_gpu_are_those_of_a_cpu(toy, tmp_path, case) -> None:
    """fp16 is refused there as on a CPU; in float32 the steps agree."""
    options = {"model": "vit", "max_steps": 2, **STEPS[case]}
    with pytest.raises(ValueError, match="fp16 would round"):
        toy.trainer(tmp_path, fp16=True, use_cpu=False, **options).train()
    runs = [toy.trainer(tmp_path, use_cpu=use_cpu, **options) for use_cpu in (True, False)]
    for trainer in runs:
        trainer.train()
    for name, value in toy.weights(runs[0]).items():
        torch.testing.assert_close(toy.weights(runs[1])[name].cpu(), value, rtol=1e-3, atol=1e-4, msg=name)
