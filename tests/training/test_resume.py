"""Killed and resumed equals uninterrupted, bit for bit."""

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from ccsam_hf.data.counts import LabelledDataset
from ccsam_hf.data.draws import Draw, uniform


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            raise Killed


class Jittered(LabelledDataset):
    """Images with noise that is a pure function of (epoch, position), as the package's own transforms are."""

    def __init__(self, items: list, labels: list) -> None:
        self.items, self._labels = items, np.array(labels)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def select(self, positions):
        raise NotImplementedError

    def __getitem__(self, index: int) -> dict:
        item = dict(self.items[index])
        if isinstance(index, Draw):
            item["pixel_values"] = item["pixel_values"] + float(uniform(0, index.epoch, index.position)[0])
        return item


STAGE_1 = {"stage": 1, "relative_radius": 0.05, "flat_weight": 0.7, "mixup_alpha": 0.3, "num_train_epochs": 3}
STAGE_2 = {"stage": 2, "num_train_epochs": 3}
CASES = {
    "stage 1": STAGE_1,
    "stage 1, workers": {**STAGE_1, "dataloader_num_workers": 2},
    "stage 1, accumulation": {**STAGE_1, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    "stage 1, momentum in Adam": {**STAGE_1, "optim": "adamw_torch", "optim_args": None},
    "unbiased norms": {**STAGE_1, "gradient_norm": "unbiased"},
    "sam": {"stage": 1, "perturbation": "sam", "num_train_epochs": 3, "radius_schedule": "linear", "radius_ramp": 2.0},
    "class copies": {**STAGE_1, "perturbed_layers": "norm_affine"},
    "stage 2": STAGE_2,
    "stage 2, cached views": {**STAGE_2, "cache_features": True, "cached_views": 2},
    "stage 2, fresh head": {**STAGE_2, "rule": "crt", "reinitialize_classifier": True},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("save_steps", [4, 3], ids=["between epochs", "in an epoch"])
def test_resumed_equals_uninterrupted(toy, tmp_path, case, save_steps) -> None:
    options = {**CASES[case], "save_strategy": "steps", "save_steps": save_steps}
    if save_steps == 4 and case in ("stage 1, workers", "unbiased norms", "sam", "class copies"):
        pytest.skip("covered by the harder case, in an epoch")

    def trainer(folder, **more):
        data = Jittered(toy.images(), toy.labels)
        return toy.trainer(tmp_path / folder, train_dataset=data, **options, **more)

    uninterrupted = trainer("whole")
    uninterrupted.train()
    killed = trainer("killed", callbacks=[KillAt(save_steps + 1)])
    with pytest.raises(Killed):
        killed.train()
    resumed = trainer("killed")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == uninterrupted.state.global_step
    for name, value in toy.weights(uninterrupted).items():
        assert torch.equal(toy.weights(resumed)[name], value), name
    if options["stage"] == 1:
        assert torch.equal(resumed.running_unit.mean, uninterrupted.running_unit.mean)


def test_a_second_run_of_one_trainer_starts_anew(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, relative_radius=0.05)
    trainer.train()
    first, mean = toy.weights(trainer), trainer.running_unit.mean
    trainer.model.load_state_dict(toy.model("cnn").state_dict())
    trainer.optimizer, trainer.lr_scheduler = None, None
    trainer.train()
    assert torch.equal(trainer.running_unit.mean, mean)
    for name, value in toy.weights(trainer).items():
        assert torch.equal(value, first[name]), name
