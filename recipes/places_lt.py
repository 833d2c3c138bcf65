"""Places-LT (365 classes, 4,980 to 5 images) with a ResNet-152 that knows ImageNet, both stages of CC-SAM.

    accelerate launch --multi_gpu --num_processes 2 recipes/places_lt.py --data_dir PLACES365 \\
        --per_device_train_batch_size 64 --bf16 true

PLACES365 holds ``train/CLASS/*.jpg``, ``val/CLASS/*.jpg`` and the lists Places_LT_{train,val,test}.txt (or give their
folder or URL as ``--list_dir``). One process trains at the paper's batch size as it stands: 128. Top-1 accuracy in %:

    overall / many / medium / few
    paper (Zhou et al., CVPR 2023, Table 3)   40.6 / 41.2 / 42.1 / 36.4
    measured here: not yet

Its Table 4 prints 41.8 for medium. Time: not measured yet. The network starts from weights
trained on the whole of ImageNet. Which ones, and which layers stage 1 trains, are settings: ``--model
resnet152.tv_in1k --pretrained true --trainable_layers layer4 fc``, as the field began; ``--trainable_layers all`` is
another. Epochs (30 + 10), lr 0.01, cosine and weight decay 5e-4 are the field's practice (Kang et al., ICLR 2020).
Settings: ccsam_hf/experiment/places.py; the same as ``python -m ccsam_hf places``.
"""

from ccsam_hf.cli import run_command

if __name__ == "__main__":
    run_command("places")
