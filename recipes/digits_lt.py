"""CC-SAM on real handwritten digits made long-tailed (IR 50), shipped with the package: no download, no GPU.

    accelerate launch recipes/digits_lt.py

Trains a plain cross-entropy control, stage 1 and stage 2 and prints one table. The settings live in the package, so
that ``python -m ccsam_hf digits`` runs the same experiment without a clone.
"""

from ccsam_hf.experiment.digits import main

if __name__ == "__main__":
    main()
