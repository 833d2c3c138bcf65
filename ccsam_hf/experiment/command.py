"""The command line of a run, as its model card shows it."""

from __future__ import annotations

from collections.abc import Sequence

from ..hub import portable_command

# The command of each recipe, by the benchmark of its defaults.
PROGRAMS = {
    "digits-lt": "digits",
    "cifar100-lt": "cifar",
    "imagenet-lt": "imagenet",
    "places-lt": "places",
    "inat2018": "inaturalist",
    "images": "folder",
}


def shown_command(benchmark: str, argv: Sequence[str]) -> str | None:
    """The command line of a recipe, by the benchmark of its defaults, without secrets and folders of this machine."""
    if benchmark not in PROGRAMS:
        return None
    kept: list[str] = []
    secret = False
    for word in argv:
        secret = word.partition("=")[0].replace("-", "_").endswith("_token") or (secret and not word.startswith("--"))
        kept += [] if secret else [word]
    return portable_command(["python", "-m", "ccsam_hf", PROGRAMS[benchmark], *kept])
