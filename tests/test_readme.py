"""What the README shows works: its program, from data to the Hub and back, and the files it names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "tests" / "hub"))

from local_hub import LocalHub, hub_environment  # noqa: E402


def test_the_program_runs(tmp_path) -> None:
    """With one epoch in each stage, against a Hub of this machine and the real client."""
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program = re.sub(r"num_train_epochs=\d+", "num_train_epochs=1", program)
    with LocalHub() as hub:
        environment = {**os.environ, **hub_environment(hub.url, str(tmp_path / "home")), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (published,) = [repo.files() for repo in hub.repos.values()]
    assert "'eval_few'" in done.stdout
    assert "'label'" in done.stdout
    assert {"model.safetensors", "config.json", "README.md"} <= set(published)
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in published)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"recipes/\w+\.\w+|model_cards/README\.md", README))))
def test_named_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"python -m ccsam_hf (\w+)", README))))
def test_named_commands_exist(command: str) -> None:
    from ccsam_hf.cli import COMMANDS

    assert command in COMMANDS
