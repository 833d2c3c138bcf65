"""ImageNet-LT (1,000 classes, 1,280 to 5 images) with ResNeXt-50, both stages of CC-SAM.

    accelerate launch --multi_gpu --num_processes 4 recipes/imagenet_lt.py --data_dir IMAGENET \\
        --per_device_train_batch_size 64 --bf16 true

IMAGENET holds ``train/n.../*.JPEG``, ``val/n.../*.JPEG`` and the lists ImageNet_LT_{train,val,test}.txt (or give their
folder or URL as ``--list_dir``). One process trains at the paper's batch size as it stands: 256. Top-1 accuracy in %:

    overall / many / medium / few
    paper (Zhou et al., CVPR 2023, Table 3)   55.4 / 63.1 / 53.4 / 41.1
    measured here: not yet

With ``--model resnet50`` the paper has 52.4 / 61.4 / 49.5 / 37.1. Time: not measured yet. The paper gives network,
batch size and SGD 0.9; epochs (90 + 10), lr 0.1, cosine, weight decay 5e-4 and augmentation are the field's practice
(Kang et al., ICLR 2020). Settings: ccsam_hf/experiment/imagenet.py; the same as ``python -m ccsam_hf imagenet``.
"""

from ccsam_hf.cli import run_command

if __name__ == "__main__":
    run_command("imagenet")
