"""How flat are these checkpoints? Noise curves, landscapes, radii, bound, Hessian and sharpness, in one report.

    python recipes/sharpness.py --model OUT/ce OUT/ccsam --benchmark cifar100-lt --output_dir sharpness --budget 20

Same as ``python -m ccsam_hf sharpness``; `--help` lists the options. An interrupted analysis goes on when the same
command is repeated, point by point. On 2 CPU cores, ResNet-32: a landscape of 21 x 21 points on 500 images takes 5.6
minutes, 50 noise levels x 5 seeds of the classifier on 10,000 images 48 s (commands and conditions: sharpness.md).
"""

from ccsam_hf.cli import run_command

if __name__ == "__main__":
    run_command("sharpness")
