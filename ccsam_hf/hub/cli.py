"""The commands `push` and `cards` of `python -m ccsam_hf`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .errors import PushError
from .push import push_to_hub
from .store import render_cards, store_card


def push_command(argv: Sequence[str] | None = None) -> None:
    """`push FOLDER REPO_ID`: publish a model folder. A push that did not happen is told without a traceback."""
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
