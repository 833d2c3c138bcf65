"""Trainer's road to the Hub, through the package's cards and its list of allowed files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from transformers import Trainer
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import HubStrategy

from ..hub import CardMetadata, PushError, RunRecord, push_to_hub, training_record, write_card

logger = logging.getLogger(__name__)


class PublishingTrainer(Trainer):
    """`transformers.Trainer` whose cards and uploads are those of `ccsam_hf.hub`: no pickles, nothing of the machine.

    ``run_record`` is what the card tells; where an experiment sets none, what the trainer knows itself.
    """

    role: ClassVar[Literal["stage1", "stage2"]] = "stage1"
    args: Any
    state: TrainerState
    run_record: RunRecord | None = None

    @property
    def method_title(self) -> str:
        """What this training is called on a card."""
        return type(self).__name__

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write the card beside the model: the run's record where an experiment set one, else what is known here.

        Takes what transformers' scripts pass, see `transformers.Trainer.create_model_card`; all of it enters the card.
        """
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir)
            if not (folder / "config.json").is_file():
                self.save_model(_internal_call=True)
            given = CardMetadata.of_call(
                language, license, tags, finetuned_from, tasks, dataset_tags, dataset, dataset_args
            )
            self._write_card(folder, model_name or folder.name, given)

    def _write_card(self, folder: Path, name: str, given: CardMetadata | None = None) -> None:
        record = self.run_record or training_record(
            folder,
            name,
            self.role,
            self.method_title,
            self.args,
            step=self.state.global_step,
            log_history=self.state.log_history,
            thresholds=self.args.shots().describe(),
            device=self.args.device,
        )
        write_card(
            folder,
            record if given is None else replace(record, card_metadata=given, license=given.license or record.license),
        )

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Publish the model folder through the package's list of allowed files; see `ccsam_hf.push_to_hub`."""
        if not blocking:
            raise ValueError("blocking=False is not supported: the folder may change while it is uploaded.")
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        repo = self.hub_model_id or self.args.hub_model_id or Path(self.args.output_dir).name
        self.create_model_card(model_name=repo.rpartition("/")[2], **kwargs)
        private = self.args.hub_private_repo if private is None else private
        return push_to_hub(
            self.args.output_dir,
            repo,
            private=private is not False,
            revision=revision or self.args.hub_revision,
            token=token or self.args.hub_token,
            commit_message=commit_message,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        repo = self.hub_model_id
        assert repo is not None
        try:
            self._write_card(Path(checkpoint_folder), repo.rpartition("/")[2])
            push_to_hub(
                checkpoint_folder,
                repo,
                private=self.args.hub_private_repo is not False,
                revision=self.args.hub_revision,
                token=self.args.hub_token,
                commit_message=f"Training in progress, step {self.state.global_step}",
            )
        except (PushError, ValueError) as error:
            # A failed upload must not end a training: everything is in the local folder.
            logger.warning("%s", error)
