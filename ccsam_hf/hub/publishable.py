"""What may leave a machine: the one list of publishable files, and the search for paths, names and secrets in them."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from safetensors import safe_open

SUFFIXES = (".safetensors", ".json", ".csv", ".md", ".png", ".yaml", ".py")
EVAL_RESULTS = ".eval_results"
# Of allowed kinds, but the state of a training rather than its result.
STATE_FILES = ("trainer_state.json", "optimizer*", "scheduler*", "scaler*", "rng_state*")
STATE_FOLDERS = ("checkpoint-*", "runs", "_*")
# What a push replaces as a whole: such a file of an earlier push goes when the folder no longer has it.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
CODE = ("cifar_resnet.py", "headed_timm.py", "heads.py")
REPLACED = (*WEIGHTS, *CODE, "figures/*", f"{EVAL_RESULTS}/*", "per_class.csv")
# First folders of the absolute paths of usual machines. Not every "/a/b": class names of Places have that form.
ROOTS = (
    "Users|Volumes|autofs|cluster|content|data|datasets|dbfs|efs|etc|export|fsx|gpfs|hdd|home|kaggle|lustre|media|mnt|"
    "nas|net|nfs|nvme|opt|private|proc|project|projects|raid|root|scratch|srv|ssd|storage|tmp|usr|var|work|workspace"
)
PATHS = re.compile(
    rf"(?<![\w./~-])/(?:{ROOTS})/(?!bin/env\b)[\w.@+-]|file://|(?<![A-Za-z0-9])[A-Za-z]:[\\/]{{1,2}}(?:Users|Windows|Documents)\b"
)
SECRETS = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bapi_org_[A-Za-z]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|"
    r"\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
SECRET_VARIABLES = re.compile(r"(TOKEN|API_KEY|SECRET|SECRET_KEY|PASSWORD|ACCESS_KEY)$")
# Names of accounts and machines that say nothing, and stand in model cards as ordinary words.
COMMON_NAMES = {"admin", "build", "ci", "data", "docker", "guest", "jovyan", "localhost", "model", "nobody", "root"}
COMMON_NAMES |= {"runner", "test", "train", "ubuntu", "user", "work"}
SHORTEST_SECRET, SHORTEST_NAME = 8, 3


def publishable_files(folder: str | Path) -> list[str]:
    """The files of a model folder that are published, as relative paths, sorted.

    Model weights (safetensors), settings and figures as text, pictures, and the code of an architecture. Pickles,
    optimizer states, training checkpoints, hidden files and anything else stay behind.
    """
    root = Path(folder)
    paths = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(path for path in paths if is_publishable(path))


def is_publishable(path: str) -> bool:
    """Whether a path relative to the model folder is on the list."""
    *parents, name = PurePosixPath(path).parts
    if not name.endswith(SUFFIXES) or _matches(name, STATE_FILES) or name.startswith((".", "_")):
        return False
    return all(
        parent == EVAL_RESULTS or not (parent.startswith(".") or _matches(parent, STATE_FOLDERS)) for parent in parents
    )


def is_replaced(path: str) -> bool:
    """Whether a file in the repository belongs to what every push writes anew."""
    return _matches(path, REPLACED)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def has_path(text: str) -> bool:
    """Whether the text holds an absolute path of some usual machine."""
    return PATHS.search(text) is not None


@dataclass(frozen=True)
class Trace:
    """A place in a file with something of this machine or user. kind names it; the thing itself is not repeated."""

    file: str
    place: str
    kind: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {self.kind}"


@dataclass(frozen=True)
class MachineStrings:
    """Strings of this machine and session, by kind; names are looked for as whole words, the others anywhere."""

    folders: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()

    @staticmethod
    def of_this_machine(folder: Path, token: str | None, public_words: Iterable[str] = ()) -> MachineStrings:
        """Home, working and model folder, user, host and secrets. public_words: names that are public anyway."""
        folders = {
            str(place) for place in (Path.home(), Path.cwd(), folder.resolve(), sys.prefix, tempfile.gettempdir())
        }
        host = socket.gethostname()
        names = {user_name(), host, host.partition(".")[0]} - COMMON_NAMES - set(public_words)
        variables = {value for name, value in os.environ.items() if SECRET_VARIABLES.search(name)}
        return MachineStrings(
            tuple(sorted(place for place in folders if len(Path(place).parts) > 1)),
            tuple(sorted(name for name in names if len(name) >= SHORTEST_NAME)),
            tuple(sorted(s for s in variables | {token or ""} if len(s) >= SHORTEST_SECRET)),
        )

    def kind_in(self, text: str) -> str | None:
        """What kind of path, name or secret the text holds; None without any."""
        if SECRETS.search(text) or any(secret in text for secret in self.secrets):
            return "a token or key"
        if has_path(text) or _has_any(text, self.folders):
            return "a path of this machine"
        if _has_any(text, self.names):
            return "the name of this machine or its user"
        return None


def user_name() -> str:
    """The account's name, empty where it has none (containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


def machine_traces(folder: Path, files: Iterable[str], strings: MachineStrings) -> list[Trace]:
    """Every place in the files (relative to the folder) with a path, name or secret of this machine."""
    found = []
    for file in files:
        for place, text in readable_parts(folder / file):
            kind = strings.kind_in(text)
            if kind is not None:
                found.append(Trace(file, place, kind))
    return found


def readable_parts(path: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of all text in a file: lines, the comments of a PNG, the header of a safetensors file."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as stored:
            yield from ((f"header {key!r}", value) for key, value in (stored.metadata() or {}).items())
            yield "tensor names", json.dumps(list(stored.keys()))
    elif path.suffix == ".png":
        yield from _png_comments(path.read_bytes())
    else:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        yield from ((f"line {number}", line) for number, line in enumerate(lines, start=1))


def _png_comments(content: bytes) -> Iterator[tuple[str, str]]:
    """Text chunks (PNG specification, section 11.3.4), compressed ones included."""
    start = 8
    while start + 8 <= len(content):
        length = int.from_bytes(content[start : start + 4])
        kind, chunk = content[start + 4 : start + 8], content[start + 8 : start + 8 + length]
        if kind == b"tEXt":
            yield "comment", chunk.decode("latin-1")
        elif kind in (b"zTXt", b"iTXt"):
            yield "comment", _decompressed(chunk).decode("utf-8", errors="replace")
        elif kind == b"eXIf":
            yield "EXIF data", chunk.decode("latin-1")
        start += length + 12


def _decompressed(chunk: bytes) -> bytes:
    """The chunk with the deflate stream in it, if there is one, expanded."""
    begin = chunk.find(b"\x78")
    try:
        return chunk[:begin] + zlib.decompress(chunk[begin:]) if begin >= 0 else chunk
    except zlib.error:
        return chunk


def _has_any(text: str, wanted: Iterable[str]) -> bool:
    """Whether one of the strings stands in the text as a whole word or path."""
    return any(re.search(rf"(?<![\w./~-]){re.escape(one)}(?![\w-])", text) for one in wanted if one in text)
