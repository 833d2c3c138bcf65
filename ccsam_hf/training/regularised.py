"""Regularisers of the whole training, for both stages: averaged weights and normalised spectra."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from .averaging import WeightAverage, estimate_statistics, has_batch_statistics
from .reporting import ReportingTrainer
from .spectral import fold_spectra, folded_state, load_spectra, normalize_spectra, normalized_layers, save_spectra

logger = logging.getLogger(__name__)


class RegularisedTrainer(ReportingTrainer):
    """Carries out ``averaging_start`` and ``spectral_norm``: what they keep lies beside every checkpoint, so that a
    resumed run equals an uninterrupted one, and no saved model needs them to load."""

    _average: WeightAverage | None = None
    _resume_folder: Path | None = None
    # Whether what is averaged lies before BatchNorm layers, whose statistics then are not its own.
    averages_backbone = True

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        folder = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        self._resume_folder = Path(folder) if folder else None
        result = super().train(resume_from_checkpoint, *args, **kwargs)
        if self._average is not None:
            self._take_average(self._average)
        return result

    # ---- spectra ----------------------------------------------------------------------------------------------------

    def start_spectral_norm(self, layers: list[nn.Module]) -> None:
        """Normalise the layers until ``stop_regularisers``, going on from a checkpoint where the run does."""
        if not self.args.spectral_norm:
            return
        fold_spectra(self.model)
        normalize_spectra(layers, self.args.seed)
        if self._resume_folder is not None:
            load_spectra(self.model, self._resume_folder)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        is_checkpoint = folder.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-")
        normalized = any(True for _ in normalized_layers(self.model))
        super()._save(output_dir, folded_state(self.model) if normalized else state_dict)
        if normalized and is_checkpoint:
            save_spectra(self.model, folder)
        if self._average is not None and is_checkpoint:
            self._average.save(folder)

    def stop_regularisers(self) -> None:
        """Leave the model without parametrisations, whatever ended the run."""
        fold_spectra(self.model)
        if self._average is not None:
            self.remove_callback(self._average)
            self._average = None

    # ---- averages ---------------------------------------------------------------------------------------------------

    def start_averaging(self) -> None:
        """Watch the parameters that are trained, going on from a checkpoint where the run does."""
        if self._average is not None:
            self.remove_callback(self._average)
            self._average = None
        if self.args.averaging_start is None:
            return
        if isinstance(self.train_dataset, IterableDataset):
            raise ValueError(
                "averaging_start passes over the training images once more at the end: load them without streaming."
            )
        average = WeightAverage(self.args.averaging_start, [p for p in self.model.parameters() if p.requires_grad])
        if self._resume_folder is not None:
            average.load(self._resume_folder)
        self._average = average
        self.add_callback(average)

    def _take_average(self, average: WeightAverage) -> None:
        average.apply()
        moved = self.averages_backbone and has_batch_statistics(self.model)
        if moved:
            estimate_statistics(self.model, self._images())
        logger.info(
            "The model is now the mean of those after %d epochs%s.",
            average.count,
            ", with BatchNorm statistics of its own" if moved else "",
        )
        self.log({"averaged_models": average.count})

    def _images(self) -> Iterator[Tensor]:
        """The training images once, augmented as in the epoch after the last, in batches of the training."""
        sampler: Any = self._make_sampler(self.train_dataset)
        sampler.set_epoch(int(self.state.num_train_epochs))
        loader = DataLoader(
            self.train_dataset,
            self._train_batch_size,
            sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )
        for batch in loader:
            yield self._prepare_inputs(batch)[self.model.main_input_name]

    def _make_sampler(self, dataset: Any) -> Any:
        raise NotImplementedError
