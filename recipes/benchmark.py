"""Methods x benchmarks x seeds from a YAML grid: one process a run, several at once, resumed after a kill, one table.

    python recipes/benchmark.py GRID.yaml --parallel 4

A run that is finished is never repeated: its row is in OUTPUT_DIR/rows.jsonl. table.md, table.csv and table.png hold
mean ± standard deviation over seeds beside the paper's figures; rows that have not been run say so. --help shows a
grid, ``python -m ccsam_hf methods`` the methods. Same as ``python -m ccsam_hf benchmark``.
"""

from ccsam_hf.cli import run_command

if __name__ == "__main__":
    run_command("benchmark")
