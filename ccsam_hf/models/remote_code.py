"""Checkpoints that carry their code, for people who do not have this package."""

import json
import shutil
from pathlib import Path

from . import cifar_resnet, headed_timm, heads


def add_remote_code(folder: str | Path) -> Path | None:
    """Let a saved timm model load with `trust_remote_code=True` where this package is not installed.

    Copies the files that register the architecture and define the replaced classifier into the folder, and points
    the `auto_map` of its config.json to them. Returns the copy that the map names, or None, with the folder left
    alone, when timm itself knows the architecture and the classifier is a plain linear layer.

    ValueError: the replaced classifier is one of a model outside timm; fold it, or publish it by other means.
    """
    config_file = Path(folder) / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    model_type = str(config.get("model_type"))
    if model_type == headed_timm.HeadedTimmConfig.model_type:
        files = [headed_timm.__file__, heads.__file__, cifar_resnet.__file__]
        classes = {
            "AutoConfig": headed_timm.HeadedTimmConfig.__name__,
            "AutoModelForImageClassification": headed_timm.HeadedTimmForImageClassification.__name__,
        }
    elif model_type.endswith(headed_timm.SUFFIX):
        raise ValueError(
            f"{config_file} is a {model_type.removesuffix(headed_timm.SUFFIX)!r} model with a replaced classifier, "
            "which has no remote code: fold_classifier it before saving, or load it with load_with_head."
        )
    elif config.get("architecture") in cifar_resnet.default_cfgs:
        files = [cifar_resnet.__file__]
        classes = {"AutoModelForImageClassification": cifar_resnet.CifarResNetForImageClassification.__name__}
    else:
        return None
    copies = [Path(shutil.copyfile(file, Path(folder) / Path(file).name)) for file in files]
    config["auto_map"] = {auto: f"{copies[0].stem}.{name}" for auto, name in classes.items()}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return copies[0]
