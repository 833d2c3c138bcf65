"""Why a push failed, in words that say what to do."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


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
