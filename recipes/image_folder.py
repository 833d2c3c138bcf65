"""Your own images, long-tailed as they come: both stages of CC-SAM, ready for ``pipeline``.

    accelerate launch recipes/image_folder.py --data_dir my_photos
    accelerate launch recipes/image_folder.py --dataset some/hub-dataset

my_photos holds ``train/CLASS/...`` and ``val/CLASS/...``, or ``CLASS/...`` alone: then a fifth of each class becomes
the test set (``--holdout_fraction``), and one image of every class at least stays in training. Prints the distribution
of the classes and which are few-shot, trains, and leaves a folder that loads as

    pipeline("image-classification", model="runs/images/model")("photo.jpg")

Starts from timm's weights of ResNet-50 on ImageNet (``--model``, ``--pretrained false`` to start from scratch). The
paper has no such row; time and accuracy depend on your images. Settings: ccsam_hf/experiment/folder.py; the same as
``python -m ccsam_hf folder``.
"""

from ccsam_hf.cli import run_command

if __name__ == "__main__":
    run_command("folder")
