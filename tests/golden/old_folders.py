"""Writes the folders under `tests/golden/folders`: a checkpoint of stage 1 and a published folder.

    python tests/golden/old_folders.py

They stand for what earlier releases wrote, so they are written once and then only read.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch

from ccsam_hf.models import create_model
from ccsam_hf.training import CCSAMTrainer, CCSAMTrainingArguments

FOLDERS = Path(__file__).with_name("folders")
SIZES = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
COUNTS = (9, 5, 2)
# What Trainer reads when it goes on; the rest of a checkpoint is pickles that nothing here needs.
KEPT = ("config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")


def tiny_model() -> Any:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        network = timm.create_model("vit_tiny_patch16_224", num_classes=len(COUNTS), **SIZES)
        timm.models.save_for_hf(network, folder, model_args=SIZES)
        return create_model(f"local-dir:{folder}", len(COUNTS), input_size=8, label_names=["cat", "dog", "owl"])


def images() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    labels = [label for label, count in enumerate(COUNTS) for _ in range(count)]
    return [{"pixel_values": torch.randn(3, 8, 8, generator=generator), "label": label} for label in labels]


def trainer(folder: Path | str, epochs: int = 2) -> CCSAMTrainer:
    args = CCSAMTrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        learning_rate=0.05,
        optim="sgd",
        lr_scheduler_type="constant",
        save_strategy="epoch",
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        many_shot=6,
        few_shot=3,
    )
    return CCSAMTrainer(model=tiny_model(), args=args, train_dataset=images())


def main() -> None:
    shutil.rmtree(FOLDERS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        run = trainer(folder, epochs=1)
        run.train()
        run.save_model()
        run.create_model_card(model_name="tiny")
        checkpoint = FOLDERS / "checkpoint-4"
        checkpoint.mkdir(parents=True)
        for name in KEPT:
            shutil.copy(Path(folder, "checkpoint-4", name), checkpoint)
        published = FOLDERS / "published"
        published.mkdir()
        for path in sorted(Path(folder).iterdir()):
            if path.suffix in (".json", ".safetensors", ".md", ".yaml"):
                shutil.copy(path, published)


if __name__ == "__main__":
    main()
