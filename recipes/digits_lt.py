"""CC-SAM on real handwritten digits made long-tailed (IR 50), shipped with the package: no download, no GPU.

    accelerate launch recipes/digits_lt.py

Trains a plain cross-entropy control, stage 1 and stage 2 and prints one table. The paper has no such row. Measured
here, one seed, top-1 accuracy in % (few-shot classes), on two CPU threads in 36 s; record and log in model_cards/:

    control 60.6 (21.0)   stage 1 47.4 (1.0)   stage 2 64.2 (46.5)

353 training images make such figures depend on the seed and even on the number of threads. The settings live in the
package, so that ``python -m ccsam_hf digits`` runs the same experiment without a clone.
"""

from ccsam_hf.__main__ import run_command

if __name__ == "__main__":
    run_command("digits")
