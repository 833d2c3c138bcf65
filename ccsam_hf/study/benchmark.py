"""``python -m ccsam_hf benchmark GRID.yaml``: a whole table from one command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from .ahead import check_runs
from .grid import read_grid
from .launch import run_grid
from .rows import check_rows, read_rows
from .table import save_table

EXAMPLE = """example of a grid:
  output_dir: runs/table1
  benchmarks:
    - {name: cifar100-lt-100, command: cifar, options: {dataset: cifar100, imbalance_ratio: 100}}
  methods:
    - ce
    - ccsam
    - {name: swept, method: ccsam, sweep: {relative_radius: [0.002, 0.01]}}
  contrasts:
    - {name: perturbed or not, of: swept, against: ce}
  seeds: [0, 1, 2]
  options: {bf16: true, stage2.learning_rate: 0.05}
  score: accuracy            # or balanced_accuracy, many, medium, few
  note: What was tuned where.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is not finished, then write table.md, table.csv and the figures."""
    parser = _Parser(
        prog="benchmark",
        description="Methods x benchmarks x seeds from a YAML grid, one process for each run; call again to go on.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("grid", help="YAML file; recipes/grids/ has some")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="runs at once (1)")
    parser.add_argument("--table", action="store_true", help="only write the table of what is finished")
    options = parser.parse_args(argv)
    grid = read_grid(options.grid)
    check_rows(grid, read_rows(grid.root))
    if not options.table:
        check_runs(grid)
    failed = [] if options.table else run_grid(grid, options.parallel, lambda text: print(text, flush=True))
    print(save_table(grid, read_rows(grid.root)))
    if failed:
        print(f"{len(failed)} runs failed; each folder has its log.txt. Call again to try them again.", file=sys.stderr)
        sys.exit(1)
