from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from ccsam_hf.experiment.digits import RECIPE

QUICK = ["--smoke", "--use_cpu", "true", "--num_train_epochs", "2", "--stage2.num_train_epochs", "2"]


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks this small only lose time to further threads, and much of it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _cache_in_a_temporary_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


@pytest.fixture
def digits() -> Any:
    """Runs the digits recipe in a folder, with a few short epochs and further flags."""

    def run(folder: Path, *flags: str) -> dict[str, Any]:
        return RECIPE.run([*QUICK, "--output_dir", str(folder), *flags])

    return run
