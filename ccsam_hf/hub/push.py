"""One command from a model folder to the Hub, which can be repeated until it succeeds."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_token,
    hf_hub_download,
)
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError

from .allowed import is_replaced, publishable_files
from .card import CARD_FILE, bare_record, render_card, shown_figures, write_card
from .errors import PushError, reason_of
from .private import PrivateStrings, private_traces
from .record import RECORD_FILE, RunRecord
from .subjects import data_of_config, read_config

logger = logging.getLogger(__name__)
# What the Hub or a person puts into a repository that holds no model yet.
BARE_FILES = {".gitattributes", ".gitignore", "LICENSE", "README.md"}


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
    commit_message: str | None = None,
) -> CommitInfo:
    """Publish a model folder as one commit of a Hub repository, which is created when it does not exist.

    Only files of the allow-list are published (`publishable_files`): no pickles, optimizer states or checkpoints. The
    card is made to name the repository; a folder without a card gets one that says what is not known. Everything is
    read for private traces first. Repeating an interrupted push ends in the same state of the repository, and files
    of an earlier push that the folder no longer has (figures, weight shards) are removed.

    Args:
        folder: a saved model, as `save_pretrained`, the trainers or `write_card` leave it.
        repo_id: NAME or USER/NAME.
        private: whether a new repository is private; one that exists stays as it is.
        revision: an existing branch to commit to, main by default.
        create_pr: open a pull request with the commit instead.
        token: the one logged in with by default.

    Raises:
        ValueError: no model in the folder, or a path, name or secret of this machine in a file (with file and line).
        PushError: the Hub could not be reached or refused; the folder is left as it is, and the message has the reason
            and the command that retries.
    """
    place = Path(folder)
    read_config(place)
    retry = retry_command(place, repo_id, private=private, revision=revision, create_pr=create_pr)
    token = token or get_token()
    prepare_card(place, repo_id)
    files = publishable_files(place)
    _check_files(place, files, repo_id, token, retry)
    if token is None:
        reason = "there is no token. Log in with `hf auth login`, or set HF_TOKEN, or pass token="
        raise PushError.explained(place, repo_id, reason, retry)
    with _explained(place, repo_id, revision, retry):
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        present = _present_files(api, place, repo_id, revision)
        additions = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=place / file) for file in files]
        gone = sorted(file for file in present - set(files) if is_replaced(file))
        return api.create_commit(
            repo_id,
            [*additions, *(CommitOperationDelete(path_in_repo=file, is_folder=False) for file in gone)],
            commit_message=commit_message or f"Publish {place.resolve().name}",
            revision=revision,
            create_pr=create_pr,
        )


def prepare_card(folder: Path, repo_id: str | None) -> None:
    """Make the folder's card name its repository. A card that somebody edited by hand is left alone."""
    card = folder / CARD_FILE
    if (folder / RECORD_FILE).is_file():
        record = RunRecord.load(folder)
        if card.is_file() and card.read_text(encoding="utf-8") != render_card(record, shown_figures(folder)):
            logger.warning("%s was edited by hand and is published as it is.", card)
            return
        write_card(folder, record.with_repo(repo_id))
    elif not card.is_file():
        name = None if repo_id is None else repo_id.rpartition("/")[2]
        write_card(folder, bare_record(folder, name).with_repo(repo_id))


def retry_command(
    folder: Path, repo_id: str, *, private: bool = True, revision: str | None = None, create_pr: bool = False
) -> str:
    """The command line that does the same push again."""
    words = ["python", "-m", "ccsam_hf", "push", str(folder), repo_id]
    words += [] if private else ["--public"]
    words += [] if revision is None else ["--revision", revision]
    return shlex.join([*words, *(["--create_pr"] if create_pr else [])])


def _check_files(folder: Path, files: list[str], repo_id: str, token: str | None, retry: str) -> None:
    """ValueError where something of this machine would be published."""
    config = read_config(folder)
    data = data_of_config(config)
    labels = " ".join(data.label_names) if data is not None else ""
    public = {repo_id, *repo_id.split("/"), *labels.replace("_", " ").split()}
    traces = private_traces(folder, files, PrivateStrings.of_this_machine(folder, token, public))
    if traces:
        lines = "\n".join(f"  {trace}" for trace in traces[:20])
        raise ValueError(
            f"{folder} is not published, because it would tell about this machine or its user:\n{lines}\n"
            f"Remove that from the files, then run\n  {retry}"
        )


def _present_files(api: HfApi, folder: Path, repo_id: str, revision: str | None) -> set[str]:
    """The repository's files. PushError's reason as ValueError: it holds something else than this kind of model."""
    try:
        info = api.model_info(repo_id, revision=revision)
    except RepositoryNotFoundError as error:
        for kind in ("dataset", "space"):
            if api.repo_exists(repo_id, repo_type=kind):
                raise ValueError(f"{repo_id} is a {kind} there. Choose another name for the model") from error
        raise
    present = {file.rfilename for file in info.siblings or ()}
    if not present <= BARE_FILES:
        theirs = _model_kind(_remote_config(repo_id, info.sha, api.token)) if "config.json" in present else None
        if theirs is None:
            raise ValueError(f"{repo_id} holds files but no model of this kind. Choose another name, or a new branch")
        if theirs != (ours := _model_kind(read_config(folder))):
            raise ValueError(f"{repo_id} holds a {theirs} model, not a {ours} one. Choose another name or a new branch")
    return present


def _remote_config(repo_id: str, commit: str | None, token: Any) -> dict[str, Any]:
    path = hf_hub_download(repo_id, "config.json", revision=commit, token=token)
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _model_kind(config: dict[str, Any]) -> str | None:
    """transformers' model type, whatever the classifier; what timm's own saver writes has none."""
    found = config.get("model_type") or ("timm_wrapper" if "architecture" in config else None)
    return None if found is None else found.removesuffix("_with_head")


@contextmanager
def _explained(folder: Path, repo_id: str, revision: str | None, retry: str) -> Iterator[None]:
    """Failures on the way to the Hub as `PushError`; an interruption tells the command that goes on."""
    try:
        yield
    except (HTTPError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise PushError.explained(folder, repo_id, reason_of(error, repo_id, revision), retry) from error
    except KeyboardInterrupt as error:
        error.add_note(f"Everything is still in {folder}. Go on with\n  {retry}")
        raise
