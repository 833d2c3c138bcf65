"""CIFAR-10-LT and CIFAR-100-LT with ResNet-32, both stages of CC-SAM.

    accelerate launch recipes/cifar_lt.py --dataset cifar100 --imbalance_ratio 100

The images come from the Hub (uoft-cs/cifar10, uoft-cs/cifar100) or from ``--data_dir``, a folder of parquet files
with the same columns. Top-1 accuracy in %, all classes, imbalance ratio 200 / 100 / 50:

    CIFAR-10-LT    paper (Zhou et al., CVPR 2023, Table 1)  80.94 / 83.92 / 86.22   measured here: not yet
    CIFAR-100-LT   paper                                    45.66 / 50.83 / 53.91   measured here: not yet

Time: not measured yet. The paper prints network, batch 64 and SGD 0.9. As released: 200 + 30 epochs, lr 0.1, 5 epochs
of warm-up, x0.1 at epochs 160 and 180, weight decay 2e-4 (zzpustc/CC-SAM configs/Cifar10.json, Cifar100.json, both of
imbalance ratio 200); stage 2's cosine is the field's practice. The LDAM-DRW, VS and
SAM families multiply by 0.01 at both epochs, as ``--method ldam_drw`` sets it. Strong augmentation, which the authors
advise: ``--augmentation autoaugment_cutout``. Settings: ccsam_hf/experiment/cifar.py; the same as ``python -m ccsam_hf
cifar``.
"""

from ccsam_hf.cli import run_command

if __name__ == "__main__":
    run_command("cifar")
