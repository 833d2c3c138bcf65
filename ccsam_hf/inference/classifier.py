"""A model with all that turns images into named labels, under the class prior of one's own test data."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .images import ONE_IMAGE, ImageInput, ImageTransform, open_image

Prior = Literal["uniform", "train"] | Sequence[float] | Tensor


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode with all that turns images into named labels.

    label_names: C names in label order. class_counts: training images of each class, None when the checkpoint does
    not say. training_prior: the class prior that the scores presume ("train", "uniform", C probabilities), or None.
    """

    model: PreTrainedModel
    transform: ImageTransform
    label_names: list[str]
    class_counts: list[int] | None
    training_prior: Prior | None

    def logits(self, images: ImageInput | Iterable[ImageInput], batch_size: int = 32) -> Tensor:
        """The model's logits [N, C] on the CPU, float32 or better; decodes one batch of images at a time."""
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

        images: a Pillow image, a path, the bytes of an image file, or a uint8 array [H, W] or [H, W, 1, 3 or 4].
            One image gives one list of dicts, several give a list of such lists, none an empty list.
        prior: the class frequencies expected where the model is used. None takes the scores as trained, which are
            those of `pipeline("image-classification")`. "uniform" expects every class equally often, "train" as
            often as in training, C non-negative numbers in their proportion. The logits become

                logits_c + log prior_c - log source_c,

            Bayes' rule when only the class frequencies change (Saerens et al., 2002).
        source_prior: the class frequencies that the scores presume, in the same forms. By default those that the
            checkpoint records: "train" after training on every image equally often (stage 1, cross entropy),
            "uniform" after class-balanced training (stage 2).

        ValueError: an image that cannot be read (the message names it), a URL, a prior without source_prior where the
        checkpoint records none, class counts needed but unknown, a prior of another length.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}.")
        shift = self._shift(prior, source_prior)
        scores, indices = (
            (self.logits(images, batch_size) + shift).softmax(-1).sort(dim=-1, descending=True, stable=True)
        )
        found = [
            [{"label": self.label_names[i], "score": s, "index": i} for s, i in zip(*row, strict=True)]
            for row in zip(scores[:, :top_k].tolist(), indices[:, :top_k].tolist(), strict=True)
        ]
        return found[0] if isinstance(images, ONE_IMAGE) else found

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


def _batches(images: ImageInput | Iterable[ImageInput], size: int) -> Iterator[list[tuple[int, ImageInput]]]:
    """Numbered images, `size` at a time; an iterable is not exhausted in advance."""
    numbered = enumerate([images] if isinstance(images, ONE_IMAGE) else images)
    while batch := list(islice(numbered, size)):
        yield batch
