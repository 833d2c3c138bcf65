"""How flat are these checkpoints? Noise curves, landscapes, radii, bound, Hessian and sharpness, in one report.

    python recipes/sharpness.py --model OUT/ce OUT/ccsam --benchmark cifar100-lt --output_dir sharpness --budget 20

`--help` lists the options. An interrupted analysis goes on when the same command is repeated.
"""

from ccsam_hf.analysis.cli import main

if __name__ == "__main__":
    main()
