"""timm architectures as transformers models that both libraries load."""

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn as nn
from timm.data import resolve_data_config
from timm.models import EfficientNet, MobileNetV3, load_model_config_from_hf, parse_model_name
from timm.models._hub import load_model_config_from_path
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")
DATA_SETTINGS = ("input_size", "mean", "std", "crop_pct", "interpolation")
# What timm knows of its own checkpoint is not true of the new model: location, classes, recommended test size ...
SOURCE_KEYS = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load"}
CLASS_KEYS = {"num_classes", "label_names", "label_descriptions", "label_offset"}
SIZE_KEYS = {"test_input_size", "test_crop_pct", "test_pool_size", "pool_size"}
# ... and, unless the weights were loaded, their origin.
ORIGIN_KEYS = {"tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes"}


def create_model(
    name: str,
    num_labels: int,
    *,
    label_names: Sequence[str] | None = None,
    input_size: int | tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    pretrained: bool = False,
) -> TimmWrapperForImageClassification:
    """A timm model behind transformers' image-classification interface, with timm's own initialisation.

    `model.save_pretrained(folder)` writes one folder that `AutoModelForImageClassification.from_pretrained(folder)`,
    `timm.create_model("local-dir:folder", pretrained=True)` and `pipeline("image-classification", model=folder)` load
    with equal logits. `model.timm_model` is the timm module. The model is in evaluation mode.

    name: an architecture of `timm.list_models()`, with or without a pretrained tag, or `hf-hub:ID`, `local-dir:PATH`.
    num_labels: number of classes C, at least 1; any C, ImageNet's and larger ones included.
    label_names: C distinct names in label order, "0" to "C-1" by default. Always stored, because transformers would
        otherwise call 1,000 unnamed classes by ImageNet's names.
    input_size, mean, std, crop_pct, interpolation: how an image becomes the model's input, stored in the model's
        `pretrained_cfg` and used by everyone who loads the folder; those left out are the architecture's own. They
        must be those of the evaluation transform used in training: with timm's defaults a CIFAR model in `pipeline`
        agreed with its training transform on 23 % of the images. An input_size of one number means square RGB.
    pretrained: load the weights that timm names for the architecture; the head is new unless C is theirs.

    ValueError: an unknown architecture (the message names near ones), num_labels below 1, label names of another
    number or repeated, a setting out of range, an input_size that the network cannot run, pretrained weights asked
    for where there are none.
    """
    names = _checked_label_names(label_names, num_labels)
    size = _as_chw(input_size)
    source_cfg, source_args = _source(name)
    model_args = _model_args(source_cfg, source_args, size)
    settings = _data_settings(source_cfg, size, mean, std, crop_pct, interpolation)
    if pretrained and not any(source_cfg.get(key) for key in ("url", "file", "hf_hub_id")):
        raise ValueError(f"pretrained=True, but timm has no weights for {name!r}. Leave pretrained out.")
    timm_model = _built(name, pretrained, num_labels, model_args, size)
    model_args = {**model_args, **_norm_epsilon(timm_model)}
    if size is not None:
        _check_size(timm_model, name, size)

    dropped = SOURCE_KEYS | CLASS_KEYS | SIZE_KEYS | (set() if pretrained else ORIGIN_KEYS)
    kept = {key: value for key, value in timm_model.pretrained_cfg.items() if key not in dropped}
    config = TimmWrapperConfig.from_dict(
        {
            "architecture": kept.pop("architecture"),
            "num_classes": num_labels,
            "num_features": timm_model.num_features,
            "label_names": names,
            "pretrained_cfg": {**kept, **settings},
            "model_args": model_args,  # also when empty: timm cannot read the null that transformers would write
        }
    )
    # Building the wrapper from the configuration alone would draw every weight again from N(0, 0.02).
    model = TimmWrapperForImageClassification.from_pretrained(None, config=config, state_dict=timm_model.state_dict())
    make_savable(model)
    return model


def make_savable(model: Any) -> None:
    """Let a timm model whose modules share weights (CoaT) be saved; a model that was loaded needs it as a new one does.

    Its state_dict gives each name a tensor of its own. Other models are left as they are.
    """
    shares = isinstance(model, TimmWrapperForImageClassification) and _shares_parameters(model)
    if shares and not model._state_dict_hooks:
        model.register_state_dict_post_hook(_with_copies_of_shared)


def _built(
    name: str, pretrained: bool, num_labels: int, model_args: dict[str, Any], size: tuple[int, int, int] | None
) -> Any:
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_labels, **model_args)
    except (AssertionError, RuntimeError, ValueError) as error:
        if size is None or pretrained:
            raise
        raise _unusable(name, size, error) from error


def _check_size(timm_model: nn.Module, name: str, size: tuple[int, int, int]) -> None:
    """Run one black image in evaluation mode: nothing else tells which sizes an architecture can run."""
    training = timm_model.training
    try:
        with torch.no_grad():
            logits = timm_model.eval()(torch.zeros(1, *size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _unusable(name, size, error) from error
    finally:
        timm_model.train(training)
    if not bool(logits.isfinite().all()):
        raise _unusable(name, size, "its features are empty or its logits not finite")


def _unusable(name: str, size: tuple[int, int, int], reason: object) -> ValueError:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return ValueError(f"{name!r} cannot run images of input_size {size}: choose another size or network ({lines[0]}).")


def _norm_epsilon(timm_model: nn.Module) -> dict[str, float]:
    """The batch normalisation's eps as a construction argument, for the families where it depends on `pretrained`.

    timm builds fbnetc_100 with another eps when it loads weights than when it does not, so that the folder must say
    which one the weights were trained with.
    """
    if not isinstance(timm_model, EfficientNet | MobileNetV3):
        return {}
    found = {module.eps for module in timm_model.modules() if isinstance(module, nn.BatchNorm2d)}
    return {"bn_eps": found.pop()} if len(found) == 1 else {}


def _shares_parameters(model: nn.Module) -> bool:
    names = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    return len(names) != len(set(names))


def _with_copies_of_shared(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Give each name its own tensor: safetensors refuses shared ones, and timm asks for every name."""
    seen: set[int] = set()
    for name, value in state_dict.items():
        if isinstance(value, torch.Tensor):
            if value.data_ptr() in seen:
                state_dict[name] = value.detach().clone()
            seen.add(value.data_ptr())


def _checked_label_names(label_names: Sequence[str] | None, num_labels: int) -> list[str]:
    if num_labels < 1:
        raise ValueError(f"num_labels must be at least 1, not {num_labels}.")
    if label_names is None:
        return [str(i) for i in range(num_labels)]
    names = [str(label) for label in label_names]
    if len(names) != num_labels:
        raise ValueError(f"label_names has {len(names)} names for num_labels={num_labels}: give one for each class.")
    repeated = [label for label, times in Counter(names).items() if times > 1]
    if repeated:
        raise ValueError(f"label_names has {repeated[0]!r} more than once: names must tell the classes apart.")
    return names


def _as_chw(input_size: int | tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    if input_size is None:
        return None
    size = (3, input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(size) != 3 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
        raise ValueError(f"input_size must be one side or (channels, height, width), not {input_size!r}.")
    return size


def _source(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """timm's pretrained_cfg and construction arguments of a name, before anything is built."""
    scheme, identifier = parse_model_name(name)
    if scheme == "hf-hub":
        cfg, _, args = load_model_config_from_hf(identifier)
    elif scheme == "local-dir":
        cfg, _, args = load_model_config_from_path(identifier)
    else:
        cfg, args = _registered_cfg(name), {}
    return cfg, {key: value for key, value in (args or {}).items() if key != "num_classes"}


def _registered_cfg(name: str) -> dict[str, Any]:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        hint = f"near names: {', '.join(near)}" if near else "see timm.list_models()"
        raise ValueError(f"Unknown architecture {name!r}; {hint}.")
    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [tagged for tagged in timm.list_pretrained(f"{architecture}.*") if tagged.startswith(f"{architecture}.")]
        raise ValueError(f"Unknown weights {name!r}; known: {', '.join(tags) or 'none'}.") from error
    return cfg.to_dict() if cfg is not None else {}


def _model_args(cfg: dict[str, Any], source_args: dict[str, Any], size: tuple[int, int, int] | None) -> dict[str, Any]:
    """The construction arguments that the saved folder must repeat."""
    args = dict(source_args)
    if size is None:
        return args
    if size[0] != 3 or "in_chans" in args:
        args["in_chans"] = size[0]
    if cfg.get("fixed_input_size", False) or "img_size" in args:
        args["img_size"] = size[1:]
    return args


def _data_settings(
    cfg: dict[str, Any],
    size: tuple[int, int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    crop_pct: float | None,
    interpolation: str | None,
) -> dict[str, Any]:
    """All five settings, those not given from the architecture."""
    given = {"input_size": size, "mean": mean, "std": std, "crop_pct": crop_pct, "interpolation": interpolation}
    settings = resolve_data_config({}, pretrained_cfg=cfg)
    settings = {key: settings[key] if given[key] is None else given[key] for key in DATA_SETTINGS}
    channels = settings["input_size"][0]
    for key in ("mean", "std"):
        settings[key] = tuple(float(value) for value in settings[key])
        if len(settings[key]) != channels:
            raise ValueError(f"{key} has {len(settings[key])} values for {channels} input channels: pass {key}=.")
    if min(settings["std"]) <= 0:
        raise ValueError(f"std must be positive, not {settings['std']}.")
    if not 0 < settings["crop_pct"] <= 1:
        raise ValueError(f"crop_pct must be above 0 and at most 1, not {settings['crop_pct']}.")
    if settings["interpolation"] not in INTERPOLATIONS:
        raise ValueError(f"interpolation={settings['interpolation']!r} is unknown: one of {', '.join(INTERPOLATIONS)}.")
    return settings
