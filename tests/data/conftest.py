import sys
from pathlib import Path

import datasets
import pytest

# The tests are collected with importlib, which leaves their folder off the path: data_trees.py lies there.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _cache_in_a_temporary_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
