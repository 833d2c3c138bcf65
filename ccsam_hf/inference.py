"""Published or saved image classifiers: load one with its weights checked, ask it for labels, label a folder.

classifier = load_classifier("folder or Hub id")
classifier.predict("cat.jpg", top_k=3)
predict_folder(classifier, "photos", "labels.csv")
"""

import csv
import os
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
)

from . import models as _registers_the_cifar_resnets  # noqa: F401
from .data.image_files import ImageInput, contents, images_below, left_out_text, open_image

__all__ = [
    "Classifier",
    "FolderReport",
    "ImageInput",
    "ImageTransform",
    "check_weights",
    "load_classifier",
    "load_network",
    "open_image",
    "predict_folder",
]

Prior = Literal["uniform", "train"] | Sequence[float] | Tensor
_FILE = (str, os.PathLike, bytes, bytearray)


@dataclass(frozen=True)
class ImageTransform:
    """One image -> the model's input [channels, H, W], by the very steps of transformers' `pipeline`.

    The orientation of the camera is applied and every mode becomes RGB as Pillow does it (alpha is cut off); a model
    with one input channel gets grey values. `open_image` has scaled 16-bit and float images before.
    """

    processor: BaseImageProcessor
    channels: int = 3

    def __call__(self, image: Image.Image) -> Tensor:
        image = ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB")
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]


def _each_image(images: Any) -> tuple[Iterable[ImageInput], bool]:
    """(the images one by one, whether the caller gave a single one). A folder stands for the images below it."""
    if isinstance(images, str | os.PathLike) and Path(images).is_dir():
        folder = Path(images)
        files, others = images_below(folder)
        if not files:
            left_out = f", but {left_out_text(others)}" if others else ""
            raise ValueError(f"Folder {folder} holds no image{left_out}; {contents(folder)}.")
        return (folder / file for file in files), False
    if isinstance(images, np.ndarray | Tensor):
        return (images, False) if images.ndim == 4 else ([images], True)
    single = isinstance(images, (Image.Image, *_FILE))
    return ([images] if single else images), single


def _batches(images: Iterable[ImageInput], size: int) -> Iterator[list[tuple[int, ImageInput]]]:
    """Numbered images, `size` at a time; an iterable is not exhausted in advance."""
    numbered = enumerate(images)
    while batch := list(islice(numbered, size)):
        yield batch


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode with all that turns images into named labels.

    Args:
        model: the network.
        transform: makes the network's input of an image.
        label_names: C names in label order.
        class_counts: training images of each class; None when the checkpoint does not say.
        training_prior: the class prior that the scores presume ("train", "uniform", C probabilities), or None.
    """

    model: PreTrainedModel
    transform: ImageTransform
    label_names: list[str]
    class_counts: list[int] | None
    training_prior: Prior | None

    def logits(self, images: ImageInput | Iterable[ImageInput], batch_size: int = 32) -> Tensor:
        """The model's logits [N, C] on the CPU, float32 or better, of what `predict` takes.

        Decodes one batch of images at a time.
        """
        return self._logits(_each_image(images)[0], batch_size)

    def _logits(self, images: Iterable[ImageInput], batch_size: int) -> Tensor:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
        rows = [self._batch_logits(batch) for batch in _batches(images, batch_size)]
        return torch.cat(rows) if rows else torch.empty(0, len(self.label_names))

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        top_k: int = 5,
        prior: Prior | None = None,
        *,
        source_prior: Prior | None = None,
        batch_size: int = 32,
    ) -> list[Any]:
        """The `top_k` best labels of each image, best first: dicts with `label`, `score` and `index`.

        Args:
            images: a Pillow image, a path, the bytes of an image file, an array [H, W] or [H, W, 1, 3 or 4], or a
                tensor [H, W] or [1, 3 or 4, H, W] (see `open_image`). Several: a folder (the images below it, in the
                order of `images_below`), an array [N, H, W, C], a tensor [N, C, H, W], or any iterable, which may be
                a generator. One image gives one list of dicts, several give a list of such lists, none an empty list.
            top_k: number of labels for each image.
            prior: the class frequencies expected where the model is used. None takes the scores as trained, which are
                those of `pipeline("image-classification")`. "uniform" expects every class equally often, "train" as
                often as in training, C non-negative numbers in their proportion. The logits become

                    logits_c + log prior_c - log source_c,

                Bayes' rule when only the class frequencies change (Saerens et al., 2002).
            source_prior: the class frequencies that the scores presume, in the same forms. By default those that the
                checkpoint records: "train" after training on every image equally often (stage 1, cross entropy),
                "uniform" after class-balanced training (stage 2).
            batch_size: images decoded and passed through the model at a time.

        Raises:
            ValueError: an image that cannot be read (the message names it), a URL, a prior without source_prior where
                the checkpoint records none, class counts needed but unknown, a prior of another length.
        """
        shift = self._shift(prior, source_prior)
        each, single = _each_image(images)
        found = self._best(self._logits(each, batch_size) + shift, top_k)
        return found[0] if single else found

    def _best(self, logits: Tensor, top_k: int) -> list[list[dict[str, Any]]]:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}.")
        scores, indices = logits.softmax(-1).sort(dim=-1, descending=True, stable=True)
        return [
            [{"label": self.label_names[i], "score": s, "index": i} for s, i in zip(*row, strict=True)]
            for row in zip(scores[:, :top_k].tolist(), indices[:, :top_k].tolist(), strict=True)
        ]

    @torch.inference_mode()
    def _batch_logits(self, batch: list[tuple[int, ImageInput]]) -> Tensor:
        pixels = torch.stack([self.transform(open_image(image, number)) for number, image in batch])
        logits = self.model(pixels.to(self.model.device, self.model.dtype)).logits
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).cpu()

    def _shift(self, prior: Prior | None, source_prior: Prior | None) -> Tensor:
        """log prior - log source [C]; zeros when no prior is asked for."""
        if prior is None:
            if source_prior is not None:
                raise ValueError("source_prior has no effect without prior: pass prior= as well.")
            return torch.zeros(len(self.label_names))
        source_prior = self.training_prior if source_prior is None else source_prior
        if source_prior is None:
            raise ValueError(
                "The checkpoint does not record which class prior its scores presume (training_prior in config.json). "
                'Pass source_prior="train" if it was trained on every image equally often, "uniform" if class-balanced.'
            )
        target, source = self._probabilities(prior, "prior"), self._probabilities(source_prior, "source_prior")
        if source.min() <= 0:
            name = self.label_names[int(source.argmin())]
            raise ValueError(
                f"source_prior is 0 for class {name!r}, which nothing can correct: give it a positive one."
            )
        return (target.log() - source.log()).float()

    def _probabilities(self, prior: Prior, option: str) -> Tensor:
        classes = len(self.label_names)
        if isinstance(prior, str):
            if prior == "uniform":
                return torch.full((classes,), 1 / classes, dtype=torch.float64)
            if prior != "train":
                raise ValueError(f'{option}={prior!r} is unknown: "uniform", "train" or {classes} numbers.')
            if self.class_counts is None:
                raise ValueError(
                    f'{option}="train" needs the training set\'s class counts, which the checkpoint does not record '
                    f"(class_counts in config.json): pass them as {option}=[...]."
                )
            prior = self.class_counts
        values = torch.as_tensor(prior, dtype=torch.float64)
        if values.shape != (classes,):
            raise ValueError(f"{option} has shape {tuple(values.shape)} for {classes} classes: give one number each.")
        if not values.isfinite().all() or values.min() < 0 or values.sum() == 0:
            raise ValueError(f"{option} must be finite and not negative, with a positive sum.")
        return values / values.sum()


def load_classifier(
    folder_or_hub_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
) -> Classifier:
    """A classifier from a folder or a Hub id, whether this package, timm's `save_for_hf` or transformers wrote it.

    Args:
        folder_or_hub_id: what `save_pretrained` wrote, or a model of the Hub.
        revision, token: for the Hub.
        device: default: the accelerator where there is one, else the CPU.
        trust_remote_code: run the Python file that a checkpoint with an architecture of its own ships.

    Raises:
        ValueError: no such folder or model; no config.json or image-processor settings; an architecture that timm
            does not know; a multi-label model; weights that are damaged or not the network's (see `check_weights`).
    """
    source = _checked_source(folder_or_hub_id)
    where: dict[str, Any] = {"revision": revision, "token": token}
    model, raw = _network(source, trust_remote_code, where)
    processor = _processor(source, trust_remote_code=trust_remote_code, **where)
    return _classifier(model, processor, raw, device)


def load_network(folder_or_hub_id: str | os.PathLike[str], *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The network alone, its weights checked as `load_classifier` checks them; it needs no image processor."""
    return _network(_checked_source(folder_or_hub_id), trust_remote_code, {})[0]


def _network(source: str, trust_remote_code: bool, where: dict[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """(the network, its configuration as it stands in the file)."""
    try:
        raw, _ = PreTrainedConfig.get_config_dict(source, **where)
        config = _config(source, raw, trust_remote_code=trust_remote_code, **where)
        # Tensors of another shape are reported by name below; transformers' own message names none.
        model, loaded = AutoModelForImageClassification.from_pretrained(
            source,
            config=config,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **where,
        )
    except ImportError as error:
        raise ValueError(
            f"{source!r} has an architecture that timm does not know. Import the package that registers it, or pass "
            f"trust_remote_code=True if the checkpoint ships its code. ({error})"
        ) from error
    except (SafetensorError, EOFError, pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(
            f"The weights of {source!r} cannot be read, the file is damaged or was cut off: copy or download it again. "
            f"({type(error).__name__}: {error})"
        ) from error
    except OSError as error:
        raise ValueError(
            f"No model could be loaded from {source!r}, neither as a folder nor from the Hub: {error}"
        ) from error
    check_weights(model, loaded, source)
    return model, raw


def check_weights(model: PreTrainedModel, loaded: Mapping[str, Any], source: str) -> None:
    """Refuses a network whose weights are not all, and only, those of its checkpoint.

    Args:
        model: what `from_pretrained` gave.
        loaded: its report (`output_loading_info=True`).
        source: the folder or Hub id, for the message.

    Raises:
        ValueError: names missing tensors (transformers fills them with random numbers), unexpected ones, those of
            another shape, and those that hold NaN. BatchNorm's batch counter may be missing: it changes no prediction.
    """
    faults = {
        "missing": sorted(name for name in loaded["missing_keys"] if not name.endswith("num_batches_tracked")),
        "not of this network": sorted(loaded["unexpected_keys"]),
        "of another shape": [
            f"{name} {list(found)} instead of {list(wanted)}"
            for name, found, wanted in sorted(loaded["mismatched_keys"])
        ],
        "not a number": sorted(name for name, tensor in model.state_dict().items() if bool(tensor.isnan().any())),
    }
    found = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if found or loaded.get("error_msgs"):
        found += loaded.get("error_msgs") or []
        raise ValueError(
            f"The weights of {source!r} are not those of its network ({type(model).__name__} of config.json). Tensors "
            f"{'; '.join(found)}. Copy or download the checkpoint again, or save it anew from the trained model."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _checked_source(folder_or_hub_id: str | os.PathLike[str]) -> str:
    source = os.fspath(folder_or_hub_id)
    if Path(source).is_dir():
        if not (Path(source) / "config.json").is_file():
            raise ValueError(f"{source!r} has no config.json: name the folder that save_pretrained wrote.")
    elif isinstance(folder_or_hub_id, Path) or source.startswith((".", "~", os.sep)) or source.count("/") > 1:
        raise ValueError(f"There is no folder {source!r}: check the path.")
    return source


def _config(source: str, raw: dict[str, Any], **where: Any) -> PreTrainedConfig:
    """The configuration, repaired where timm's saver writes what transformers' timm wrapper does not read.

    timm keeps the label names of a model that it loaded under pretrained_cfg, and repeats the number of classes in
    model_args.
    """
    names = raw.get("label_names") or raw.get("pretrained_cfg", {}).get("label_names")
    labels = {}
    if names and "id2label" not in raw:
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    config = AutoConfig.from_pretrained(source, **where, **labels)
    if isinstance(config, TimmWrapperConfig):
        config.model_args = {key: value for key, value in (config.model_args or {}).items() if key != "num_classes"}
    return config


def _processor(source: str, **where: Any) -> BaseImageProcessor:
    try:
        return AutoImageProcessor.from_pretrained(source, **where)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{source!r} does not say how an image becomes the model's input: save the image processor with the "
            f"model by processor.save_pretrained. ({error})"
        ) from error


def _classifier(
    model: PreTrainedModel, processor: BaseImageProcessor, raw: dict[str, Any], device: str | torch.device | None
) -> Classifier:
    config: Any = model.config
    if config.problem_type == "multi_label_classification":
        raise ValueError("The model gives several labels to an image: use pipeline('image-classification') for it.")
    counts = raw.get("class_counts")
    if counts is not None and len(counts) != config.num_labels:
        raise ValueError(f"config.json has {len(counts)} class_counts for {config.num_labels} classes: correct it.")
    if device is None:
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    placed: Any = model
    placed.to(device)
    channels = config.pretrained_cfg["input_size"][0] if isinstance(config, TimmWrapperConfig) else 3
    return Classifier(
        model=placed.eval(),
        transform=ImageTransform(processor, channels),
        label_names=[config.id2label[i] for i in range(config.num_labels)],
        class_counts=counts,
        training_prior=raw.get("training_prior"),
    )


@dataclass(frozen=True)
class FolderReport:
    """What `predict_folder` did.

    Args:
        out: the CSV file.
        images: number of rows.
        unreadable: reason by file, for images that are unreadable and have no row.
        left_out: number of files by extension that are no images by it ("" for none).
    """

    out: Path
    images: int
    unreadable: Mapping[str, str]
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        lines = [f"{self.images:,} images -> {self.out}"]
        if self.left_out:
            lines.append(f"Left out, no images by their extension: {left_out_text(Counter(self.left_out))}")
        lines += [f"Could not be read: {file}: {reason}" for file, reason in self.unreadable.items()]
        # File names may hold bytes that are no UTF-8, which printing would refuse.
        return "\n".join(lines).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def predict_folder(
    model: Classifier | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    top_k: int = 5,
    prior: Prior | None = None,
    source_prior: Prior | None = None,
    batch_size: int = 32,
) -> FolderReport:
    """Labels all images below a folder and writes one CSV row for each: `file`, `label_1`, `score_1`, `label_2`, ...

    Files are relative to `folder`, in sorted order. `out` is written whole or not at all; images that cannot be read
    have no row and stand in the report.

    Args:
        model: a classifier, or the folder or Hub id of one.
        folder: images at any depth, recognised by their extension.
        out: the CSV file, UTF-8.
        top_k, prior, source_prior, batch_size: see `Classifier.predict`.

    Raises:
        ValueError: no such folder, no image in it, `out` in no folder; what `Classifier.predict` refuses.
    """
    root, out = Path(folder), Path(out)
    files, others = images_below(root)
    if not files:
        raise ValueError(f"Folder {root} holds no image; {contents(root)}.")
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"{out} cannot be written: name a file in a folder that exists.")
    classifier = model if isinstance(model, Classifier) else load_classifier(model)
    shift = classifier._shift(prior, source_prior)
    top_k = min(top_k, len(classifier.label_names))
    unreadable: dict[str, str] = {}
    rows = 0
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            columns = [f"{column}_{k + 1}" for k in range(top_k) for column in ("label", "score")]
            writer.writerow(["file", *columns])
            readable = _readable(root, files, unreadable)
            while batch := list(islice(readable, max(batch_size, 1))):
                logits = classifier.logits([image for _, image in batch], batch_size) + shift
                for (name, _), best in zip(batch, classifier._best(logits, top_k), strict=True):
                    writer.writerow([name, *(value for row in best for value in (row["label"], f"{row['score']:.6f}"))])
                rows += len(batch)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return FolderReport(out, rows, unreadable, dict(others))


def _readable(root: Path, files: Iterable[str], unreadable: dict[str, str]) -> Iterator[tuple[str, Image.Image]]:
    """Each file with its image; the reason goes to `unreadable` where there is none."""
    for file in files:
        try:
            yield file, open_image(root / file)
        except ValueError as error:
            unreadable[file] = str(error)
