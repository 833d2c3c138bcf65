"""Checkpoints and published folders of the first layout still load; `old_folders.py` wrote them."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from ccsam_hf import load_classifier

SPEC = importlib.util.spec_from_file_location("golden_old_folders", Path(__file__).with_name("old_folders.py"))
assert SPEC is not None
assert SPEC.loader is not None
old = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(old)


def test_checkpoint_goes_on_with_its_running_mean(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-4"
    shutil.copytree(old.FOLDERS / "checkpoint-4", checkpoint)
    stored = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    trainer = old.trainer(tmp_path, epochs=2)
    seen: list[tuple[int, float]] = []
    step = trainer.training_step

    def recorded(*given: Any, **named: Any) -> torch.Tensor:
        mean = next(c for c in trainer.callback_handler.callbacks if hasattr(c, "fold")).mean
        seen.append((trainer.state.global_step, mean.item()))
        return step(*given, **named)

    trainer.training_step = recorded
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert [at for at, _ in seen] == [4, 5, 6, 7]
    assert seen[0][1] == pytest.approx(stored["stateful_callbacks"]["RunningUnit"]["args"]["mean"], rel=1e-6)
    assert trainer.state.log_history[: len(stored["log_history"])] == stored["log_history"]


def test_published_folder_loads_everywhere() -> None:
    folder = old.FOLDERS / "published"
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    classifier = load_classifier(folder)
    assert list(classifier.label_names) == ["cat", "dog", "owl"]
    assert classifier.class_counts == list(old.COUNTS)
    first = classifier.predict([image])[0][0]
    assert first["label"] in ("cat", "dog", "owl")
    model = AutoModelForImageClassification.from_pretrained(folder)
    for name, value in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(model.state_dict()[f"timm_model.{name}"], value, rtol=0, atol=0)
