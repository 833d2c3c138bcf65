"""What one run of a benchmark is, beside the arguments of its two trainers."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..data import BENCHMARKS, Benchmark, load_benchmark, load_images

OWN_IMAGES = "images"
# Options that only a benchmark has, and only one's own images.
BENCHMARK_ONLY = ("imbalance_ratio", "list_dir", "subset")
IMAGES_ONLY = ("hub_image_column", "hub_label_column", "holdout_fraction")


@dataclass
class BenchmarkOptions:
    """Data, network and evaluation of one experiment."""

    benchmark: str = field(
        default="digits-lt",
        metadata={"help": f"One of {', '.join(BENCHMARKS)}; or {OWN_IMAGES}: the images of --data_dir or --dataset."},
    )
    dataset: str | None = field(
        default=None,
        metadata={"help": "Short for --benchmark (cifar10, cifar100); with one's own images a Hub data set."},
    )
    imbalance_ratio: float | None = field(
        default=None, metadata={"help": "Largest over smallest class, for sets made long-tailed on loading."}
    )
    split_seed: str = field(
        default="0", metadata={"help": "Seed of the long-tailed split, or none to take the first images of a class."}
    )
    data_dir: str | None = field(default=None, metadata={"help": "Folder with the data, instead of the Hub."})
    list_dir: str | None = field(default=None, metadata={"help": "Folder or URL of the split's lists."})
    hub_dataset: str | None = field(default=None, metadata={"help": "Hub data set to take the images from."})
    hub_image_column: str | None = field(default=None, metadata={"help": "Its column of images, if it has several."})
    hub_label_column: str | None = field(default=None, metadata={"help": "Its column of classes, if it has several."})
    holdout: bool = field(
        default=False, metadata={"help": "Evaluate on images held out of training; the test set stays untouched."}
    )
    holdout_fraction: float | None = field(
        default=None, metadata={"help": "Share of each class that becomes the test set of images without one (0.2)."}
    )
    subset: bool = field(default=False, metadata={"help": "Accept data whose sizes differ from the benchmark's."})
    skip_broken_images: bool = field(default=False, metadata={"help": "Drop unreadable images, counted and reported."})
    model: str = field(default="cifar_resnet32", metadata={"help": "Any timm architecture, with a tag of weights."})
    pretrained: bool = field(default=False, metadata={"help": "Start from timm's pre-trained weights."})
    trainable_layers: list[str] | None = field(
        default=None,
        metadata={"help": "all, or modules that stage 1 trains, such as layer4 fc; the others keep their weights."},
    )
    input_size: int | None = field(
        default=None, metadata={"help": "Side of the network's input in pixels, instead of the benchmark's."}
    )
    augmentation: str = field(default="crop_flip", metadata={"help": "Training augmentation, by name."})
    data_on_device: bool = field(
        default=False,
        metadata={
            "help": "Keep small images on the training device and augment them there, for a fast GPU beside few cores."
        },
    )
    control: bool = field(
        default=False, metadata={"help": "Also train the control: the same run with radius 0, before stage 1."}
    )
    second_stage: bool = field(default=True, metadata={"help": "Retrain the classifier (stage 2) after stage 1."})

    def __post_init__(self) -> None:
        if self.trainable_layers in (["all"], ["none"]):
            self.trainable_layers = None
        if self.dataset is not None:
            self._take_dataset(self.dataset)
        if self.benchmark != OWN_IMAGES and self.benchmark not in BENCHMARKS:
            raise ValueError(
                f"--benchmark {self.benchmark} is not known: choose {', '.join(BENCHMARKS)} or {OWN_IMAGES}."
            )
        self._refuse_idle(BENCHMARK_ONLY if self.benchmark == OWN_IMAGES else IMAGES_ONLY)
        if self.split_seed.lower() != "none" and not self.split_seed.removeprefix("-").isdecimal():
            raise ValueError(f"--split_seed {self.split_seed} is neither a whole number nor none.")

    def _take_dataset(self, name: str) -> None:
        if f"{name}-lt" in BENCHMARKS or name in BENCHMARKS:
            self.benchmark = name if name in BENCHMARKS else f"{name}-lt"
        elif self.benchmark == OWN_IMAGES and self.hub_dataset is None:
            self.hub_dataset = name
        else:
            names = ", ".join(key.removesuffix("-lt") for key in BENCHMARKS)
            raise ValueError(
                f"--dataset {name} is not known here: choose one of {names}. For a copy of this benchmark's images "
                "on the Hub use --hub_dataset, for images of your own recipes/image_folder.py."
            )
        self.dataset = None

    def _refuse_idle(self, names: tuple[str, ...]) -> None:
        defaults = {f.name: f.default for f in fields(self)}
        changed = [f"--{name}" for name in names if getattr(self, name) != defaults[name]]
        if changed:
            raise ValueError(f"{', '.join(changed)}: no effect with --benchmark {self.benchmark}; leave it out.")

    def load(self) -> Benchmark:
        """The data, checked; ValueError as `load_benchmark` and `load_images` raise it."""
        seed = None if self.split_seed.lower() == "none" else int(self.split_seed)
        if self.benchmark == OWN_IMAGES:
            if seed is None:
                raise ValueError("--split_seed none: the hold-out of your own images is drawn by a number, give one.")
            return load_images(
                data_dir=self.data_dir,
                hub_dataset=self.hub_dataset,
                image_column=self.hub_image_column,
                label_column=self.hub_label_column,
                holdout_fraction=self.holdout_fraction,
                split_seed=seed,
                holdout=self.holdout,
                skip_broken_images=self.skip_broken_images,
            )
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
