"""Runs of a grid as processes, several at once; what is finished is not repeated."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from .grid import Grid, Run
from .rows import Row, check_rows, finished_row, read_rows, write_rows

LOG = "log.txt"
LOCK = ".lock"
POLL = 0.1
PROGRAM = (sys.executable, "-m", "ccsam_hf")


@dataclass
class Started:
    """A process at work. The lock is open in it too, so that it is held until the process ends, come what may."""

    run: Run
    process: subprocess.Popen[bytes]
    lock: IO[bytes]
    slot: int
    began: float


def run_grid(
    grid: Grid, parallel: int = 1, say: Callable[[str], None] = print, program: Sequence[str] = PROGRAM
) -> list[Run]:
    """Carry out every run that has no row yet; returns those that failed, whose folder has the `LOG`.

    An interrupted run goes on from its last checkpoint where it keeps any. Interrupting this program ends its
    processes. A run that another program's process is still busy with is left to it. program: words before a run's.
    """
    if parallel < 1:
        raise ValueError(f"--parallel must be at least 1, got {parallel}.")
    rows = read_rows(grid.root)
    check_rows(grid, rows)
    waiting = [run for run in grid.runs() if run.key not in rows]
    say(f"{len(rows)} runs finished before, {len(waiting)} to do, {parallel} at once")
    failed: list[Run] = []
    busy: list[Started] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < parallel:
                slot = min(set(range(parallel)) - {s.slot for s in busy})
                started = _start(waiting.pop(0), program, environment(slot, parallel), slot, say)
                busy += [started] if started else []
            for done in [s for s in busy if s.process.poll() is not None]:
                busy.remove(done)
                row = _end(done, say)
                if row is None:
                    failed.append(done.run)
                else:
                    rows[done.run.key] = row
                    write_rows(grid.root, rows.values())
            time.sleep(POLL)
    finally:
        for left in busy:
            left.process.terminate()
        for left in busy:
            left.process.wait()
    return failed


def _start(
    run: Run, program: Sequence[str], variables: dict[str, str], slot: int, say: Callable[[str], None]
) -> Started | None:
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = (run.folder / LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        say(f"left alone, another process is at it: {_title(run)}")
        return None
    again = (run.folder / LOG).is_file()
    words = [*run.words(), *(["--resume_from_checkpoint=true"] if again else [])]
    with (run.folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [*program, *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables,
            pass_fds=(lock.fileno(),),
        )
    say(f"{'resumed' if again else 'started'}: {_title(run)}")
    return Started(run, process, lock, slot, time.perf_counter())


def _end(done: Started, say: Callable[[str], None]) -> Row | None:
    done.lock.close()
    seconds = time.perf_counter() - done.began
    row = finished_row(done.run) if done.process.returncode == 0 else None
    if row is None:
        say(f"FAILED after {seconds:.0f} s: {_title(done.run)}: {last_line(done.run.folder / LOG)}")
    else:
        say(f"finished in {seconds:.0f} s: {_title(done.run)}: {100 * row['accuracy']:.2f} %")
    return row


def environment(slot: int, parallel: int) -> dict[str, str]:
    """The process's share of the machine: one GPU, taken in turns, and an equal part of the cores."""
    found = dict(os.environ)
    devices = _devices()
    if devices:
        found["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    found.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // parallel)))
    return found


def _devices() -> Sequence[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def last_line(path: Path) -> str:
    """What a failed run said last."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def _title(run: Run) -> str:
    return f"{run.benchmark.name}, {run.method.name}, seed {run.seed}"
