"""Cost of a training step: plain, SAM and its relatives, CC-SAM at every scope, and the released loop over classes.

    python recipes/step_cost.py                                          # ResNet-32, batch 64, 100 classes
    python recipes/step_cost.py --model resnet50 --image_size 224 --num_classes 1000 --batch_size 16
    python recipes/step_cost.py --classifier 256 2048 1000               # the classifier part alone

Times are taken in turns within one run; quote the ratios.
"""

from ccsam_hf.study.step_cost import main

if __name__ == "__main__":
    main()
