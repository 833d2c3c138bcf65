"""Publishes a model folder as one commit on the Hub, explains failures, and has the commands `push` and `cards`."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
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
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .card import render_card, render_cards, shown_figures, store_card, write_card
from .collect import bare_record, data_of_config, read_config
from .publishable import MachineStrings, is_replaced, machine_traces, publishable_files
from .record import CARD_FILE, RECORD_FILE, RunRecord

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
    traces = machine_traces(folder, files, MachineStrings.of_this_machine(folder, token, public))
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
    """Failures on the way to the Hub as `PushError`; a note on an interruption has the command that goes on."""
    try:
        yield
    except (HTTPError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise PushError.explained(folder, repo_id, reason_of(error, repo_id, revision), retry) from error
    except KeyboardInterrupt as error:
        error.add_note(f"Everything is still in {folder}. Go on with\n  {retry}")
        raise


class PushError(RuntimeError):
    """A push that did not happen. Nothing is lost; the message names the reason, the folder and the retry."""

    @classmethod
    def explained(cls, folder: Path, repo_id: str, reason: str, retry: str) -> PushError:
        return cls(
            f"{folder} was not published as {repo_id}: {reason}.\n"
            f"Nothing is lost, every file is still in {folder}. Try again with\n  {retry}"
        )


def reason_of(error: BaseException, repo_id: str, revision: str | None) -> str:
    """The reason and the remedy of whatever the Hub's client raised, without full stop."""
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        # The client wraps what happens in its upload threads.
        return reason_of(error.__cause__, repo_id, revision)
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is on. Unset HF_HUB_OFFLINE"
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} is no repository name. Use NAME or USER/NAME with letters, digits, '-', '_' and '.'"
    if isinstance(error, HfHubHTTPError):
        return _reason_of_status(error, repo_id, revision)
    if isinstance(error, HTTPError | ConnectionError | TimeoutError):
        return f"the connection to the Hub failed ({_first_line(error)}). Check the network"
    if isinstance(error, KeyError):
        return f"the Hub's answer is not what its client expects ({error} is missing). Wait a little"
    return _first_line(error)


def _reason_of_status(error: HfHubHTTPError, repo_id: str, revision: str | None) -> str:
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        make = f"huggingface_hub.create_branch({repo_id!r}, branch={revision!r})"
        return f"it has no branch {revision!r}. Create it with {make}, or leave out the revision"
    if status == 401:
        return "the Hub does not accept the token. Log in again with `hf auth login`, or set a valid HF_TOKEN"
    if status == 403:
        return (
            f"the token may not write to {repo_id}. Use one with write permission, another name, or open a pull "
            "request with --create_pr"
        )
    if status == 409:
        return (
            f"it conflicts with what is on the Hub, a repository of that name or another commit at the same time "
            f"({_first_line(error)}). Repeat it, and if it stays choose another name"
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return "the Hub does not find it, or the token may not see it. Check the name and the token"
    if status == 429:
        return "the Hub asks for fewer requests. Wait a few minutes"
    if status >= 500:
        return f"the Hub has a problem of its own (status {status}). Wait a little"
    return f"the Hub refused it (status {status}: {_first_line(error)})"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


def push_command(argv: Sequence[str] | None = None) -> None:
    """`push FOLDER REPO_ID`: publish a model folder. A failed push is reported without a traceback."""
    parser = argparse.ArgumentParser(prog="python -m ccsam_hf push", description=push_command.__doc__)
    parser.add_argument("folder", help="model folder, as training leaves it")
    parser.add_argument("repo_id", help="NAME or USER/NAME")
    parser.add_argument("--public", action="store_true", help="make a new repository public; private by default")
    parser.add_argument("--revision", help="existing branch to commit to; main by default")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--commit_message")
    given = parser.parse_args(argv)
    try:
        done = push_to_hub(
            given.folder,
            given.repo_id,
            private=not given.public,
            revision=given.revision,
            create_pr=given.create_pr,
            commit_message=given.commit_message,
        )
    except PushError as error:
        sys.exit(str(error))
    print(done.pr_url or done.commit_url)


def cards_command(argv: Sequence[str] | None = None) -> None:
    """`cards [FOLDER]`: render the stored model cards again, those of new runs (`--add`) among them."""
    parser = argparse.ArgumentParser(prog="python -m ccsam_hf cards", description=cards_command.__doc__)
    parser.add_argument("folder", nargs="?", default="model_cards")
    parser.add_argument("--add", nargs="+", default=[], metavar="MODEL", help="model folders whose cards to store")
    given = parser.parse_args(argv)
    for model in given.add:
        store_card(model, given.folder)
    for card in render_cards(given.folder):
        print(card)
