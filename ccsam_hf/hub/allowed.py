"""The one list of what may be published."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

SUFFIXES = (".safetensors", ".json", ".csv", ".md", ".png", ".yaml", ".py")
EVAL_RESULTS = ".eval_results"
# Of allowed kinds, but the state of a training rather than its result.
STATE_FILES = ("trainer_state.json", "optimizer*", "scheduler*", "scaler*", "rng_state*")
STATE_FOLDERS = ("checkpoint-*", "runs", "_*")
# What a push replaces as a whole: such a file of an earlier push goes when the folder no longer has it.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
CODE = ("cifar_resnet.py", "headed_timm.py", "heads.py")
REPLACED = (*WEIGHTS, *CODE, "figures/*", f"{EVAL_RESULTS}/*", "per_class.csv")


def publishable_files(folder: str | Path) -> list[str]:
    """The files of a model folder that are published, as relative paths, sorted.

    Model weights (safetensors), settings and figures as text, pictures, and the code of an architecture. Pickles,
    optimizer states, training checkpoints, hidden files and anything else stay behind.
    """
    root = Path(folder)
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(path for path in paths if is_publishable(path))


def is_publishable(path: str) -> bool:
    """Whether a path relative to the model folder is on the list."""
    *parents, name = PurePosixPath(path).parts
    if not name.endswith(SUFFIXES) or _matches(name, STATE_FILES) or name.startswith((".", "_")):
        return False
    return all(
        parent == EVAL_RESULTS or not (parent.startswith(".") or _matches(parent, STATE_FOLDERS)) for parent in parents
    )


def is_replaced(path: str) -> bool:
    """Whether a file in the repository belongs to what every push writes anew."""
    return _matches(path, REPLACED)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
