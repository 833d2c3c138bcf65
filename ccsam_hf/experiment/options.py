"""What one run of a benchmark is, beside the arguments of its two trainers."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data import Benchmark, load_benchmark


@dataclass
class BenchmarkOptions:
    """Data, network and evaluation of one experiment."""

    benchmark: str = field(default="digits-lt", metadata={"help": "Key of ccsam_hf.BENCHMARKS."})
    model: str = field(default="cifar_resnet32", metadata={"help": "Any timm architecture."})
    pretrained: bool = field(default=False, metadata={"help": "Start from timm's pre-trained weights."})
    imbalance_ratio: float | None = field(
        default=None, metadata={"help": "Largest over smallest class, for sets made long-tailed on loading."}
    )
    split_seed: str = field(
        default="0", metadata={"help": "Seed of the long-tailed split, or none to take the first images of a class."}
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder with the data, instead of the Hub."})
    list_dir: str | None = field(default=None, metadata={"help": "Folder or URL of the split's lists."})
    hub_dataset: str | None = field(default=None, metadata={"help": "Hub dataset to take the images from."})
    holdout: bool = field(
        default=False, metadata={"help": "Evaluate on images held out of training; the test set stays untouched."}
    )
    subset: bool = field(default=False, metadata={"help": "Accept data whose sizes differ from the benchmark's."})
    skip_broken_images: bool = field(default=False, metadata={"help": "Drop unreadable images, counted and reported."})
    augmentation: str = field(default="crop_flip", metadata={"help": "Training augmentation, by name."})
    control: bool = field(
        default=False, metadata={"help": "Also train the control: the same run with radius 0, before stage 1."}
    )
    second_stage: bool = field(default=True, metadata={"help": "Retrain the classifier (stage 2) after stage 1."})

    def load(self) -> Benchmark:
        seed = None if self.split_seed.lower() == "none" else int(self.split_seed)
        return load_benchmark(
            self.benchmark,
            imbalance_ratio=self.imbalance_ratio,
            split_seed=seed,
            data_dir=self.data_dir,
            list_dir=self.list_dir,
            hub_dataset=self.hub_dataset,
            holdout=self.holdout,
            subset=self.subset,
            skip_broken_images=self.skip_broken_images,
        )
