"""The whole picture of a checkpoint: accuracies with intervals, calibration, label shift, open set, figures.

    python recipes/evaluate.py --model OUT --benchmark cifar100-lt --output_dir OUT/evaluation
    accelerate launch recipes/evaluate.py --model OUT --benchmark cifar10-lt --output_dir OUT/evaluation \
        --targets forward-50 uniform backward-50 --open_dataset cifar100-lt --open_scorers probability cosine openmax

The model may be a folder or Hub id of this package, of timm or of transformers. `--help` lists the options;
`--compare_with OTHER/evaluation` tests the difference between two checkpoints on the same images.
"""

from ccsam_hf.cli import run_command

if __name__ == "__main__":
    run_command("evaluate")
