"""CC-SAM on real handwritten digits made long-tailed (IR 50), shipped with the package: no download, no GPU.

    accelerate launch recipes/digits_lt.py

Trains a plain cross-entropy control, stage 1 and stage 2 and prints one table. The paper has no such row. The
settings live in the package, so that ``python -m ccsam_hf digits`` runs the same experiment without a clone.
"""

from ccsam_hf.__main__ import run_command

if __name__ == "__main__":
    run_command("digits")
