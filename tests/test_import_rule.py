"""The rooms may only import downwards, and transformers stays out of the pure ones."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ccsam_hf"

# A room may import rooms of a lower level, and itself. Rooms of one level do not know each other.
LEVEL = {
    "_shared": -1,
    "shots": 0,
    "data": 1,
    "models": 1,
    "metrics": 1,
    "losses": 1,
    "sam": 1,
    "inference": 2,
    "hub": 3,
    "evaluation": 3,
    "training": 4,
    "methods": 5,
    "experiment": 6,
    "study": 7,
    "sharpness": 7,
    "cli": 8,
    "__main__": 9,
    "recipes": 8,
    "__init__": 9,
}
WITHOUT_TRANSFORMERS = {"data", "losses", "sam", "shots", "metrics"}
ADAPTER = PACKAGE / "metrics" / "adapter.py"
PURE_TORCH = {"losses", "sam"}
STANDARD_AND_TORCH = {"torch", "numpy", "ccsam_hf"}


def room_of(path: Path) -> str:
    if path.is_relative_to(PACKAGE):
        return path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "recipes"


def imported_modules(path: Path) -> list[str]:
    """Absolute names of everything a file imports, inside functions too."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "recipes").rglob("*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    for name in imported_modules(path):
        top, *rest = name.split(".")
        if top == "ccsam_hf" and rest and rest[0] in LEVEL and room not in ("recipes", "__main__", "__init__"):
            assert rest[0] == room or LEVEL[rest[0]] < LEVEL[room], f"{room} must not import {name}"
        if room in WITHOUT_TRANSFORMERS and path != ADAPTER:
            assert top != "transformers", f"{room} must not import transformers"


@pytest.mark.parametrize("room", sorted(PURE_TORCH))
def test_pure_rooms_need_torch_only(room: str) -> None:
    import sys

    for path in (PACKAGE / room).rglob("*.py"):
        for name in imported_modules(path):
            top = name.split(".")[0]
            assert top in STANDARD_AND_TORCH or top in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_every_room_has_a_level() -> None:
    assert {room_of(path) for path in SOURCES} <= set(LEVEL)
