"""``python -m ccsam_hf COMMAND``: the package's programs where there is no clone with recipes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

# Imported on demand: listing the commands must not load every library.
COMMANDS: dict[str, tuple[str, str]] = {
    "digits": ("ccsam_hf.experiment.digits:main", "train both stages on the embedded digits, no download"),
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        width = max(map(len, COMMANDS))
        lines = [f"  {command:<{width}}  {purpose}" for command, (_, purpose) in COMMANDS.items()]
        print("usage: python -m ccsam_hf COMMAND [OPTIONS]\n\n" + "\n".join(lines))
        sys.exit(0 if name in ("", "-h", "--help") else f"ccsam_hf: unknown command {name!r}")
    module, function = COMMANDS[name][0].split(":")
    program: Callable[[list[str]], object] = getattr(import_module(module), function)
    program(sys.argv[2:])


if __name__ == "__main__":
    main()
