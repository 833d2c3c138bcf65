"""Checkpoints of the CIFAR ResNets for people who do not have this package."""

import json
import shutil
from pathlib import Path

from . import cifar_resnet


def add_remote_code(folder: str | Path) -> Path | None:
    """Let a saved model load with `trust_remote_code=True` where this package is not installed.

    Copies the file that registers the architecture into the folder and points the `auto_map` of its config.json to
    it. Returns the copy's path, or None, with the folder left alone, when timm itself knows the architecture.
    """
    config_file = Path(folder) / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if config.get("architecture") not in cifar_resnet.default_cfgs:
        return None
    source = Path(cifar_resnet.__file__)
    copy = Path(shutil.copyfile(source, Path(folder) / source.name))
    wrapper = cifar_resnet.CifarResNetForImageClassification.__name__
    config["auto_map"] = {"AutoModelForImageClassification": f"{source.stem}.{wrapper}"}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return copy
