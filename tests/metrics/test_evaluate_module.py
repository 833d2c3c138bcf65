"""The metric loads by `evaluate` from the package's own folder, with no network."""

import os
import subprocess
import sys
from pathlib import Path

import ccsam_hf.metrics

SCRIPT = """
import evaluate
metric = evaluate.load({folder!r})
print(metric.compute(predictions=[0, 1, 1], references=[0, 1, 0], class_counts=[200, 3]))
print(metric.compute(predictions=[0, 1], references=[0, 1], class_counts=[20, 3], few=3, boundaries="inclusive"))
"""


def test_loads_offline(tmp_path: Path) -> None:
    # A process of its own, because the offline switch and the cache folders are read at import.
    folder = Path(ccsam_hf.metrics.__file__).parent / "long_tail_accuracy"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = [sys.executable, "-c", SCRIPT.format(folder=str(folder))]
    output = subprocess.run(
        run, env=os.environ | offline, capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout
    first, second = output.strip().splitlines()
    expected = "'accuracy': 0.6666666666666666, 'balanced_accuracy': 0.75, 'many': 0.5, 'medium': None, 'few': 1.0"
    assert first == "{" + expected + "}"
    assert second == "{'accuracy': 1.0, 'balanced_accuracy': 1.0, 'many': None, 'medium': 1.0, 'few': 1.0}"
