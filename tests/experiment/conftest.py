from pathlib import Path
from typing import Any

import datasets
import pytest

from ccsam_hf.experiment.digits import RECIPE

QUICK = "--smoke --use_cpu true --dataloader_pin_memory false --num_train_epochs 2 --stage2.num_train_epochs 2".split()


@pytest.fixture(autouse=True)
def _cache_in_a_temporary_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


@pytest.fixture
def digits() -> Any:
    """Runs the digits recipe in a folder, with a few short epochs and further flags."""

    def run(folder: Path, *flags: str) -> dict[str, Any]:
        return RECIPE.run([*QUICK, "--output_dir", str(folder), *flags])

    return run
