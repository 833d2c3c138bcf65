"""Long-tailed splits, benchmarks, samplers, augmentations and model inputs."""

from .augment import AUGMENTATIONS, Augmentation, ImageConfig, register_augmentation
from .benchmarks import load_benchmark
from .counts import (
    LabelledDataset,
    check_class_counts,
    check_label_order,
    class_counts,
    counts_from_labels,
    found_label_column,
    labels_of,
    readable_labels,
)
from .draws import Draw, draw_keys, integers, random_bits, seeded, uniform
from .folder import load_images
from .long_tail import make_long_tailed, stratified_holdout
from .records import (
    BENCHMARKS,
    Benchmark,
    BenchmarkRecord,
    Request,
    Splits,
    benchmark_record,
    class_report,
    register_benchmark,
    splits_of,
)
from .samplers import SAMPLING_SCHEMES, ClassSampler
from .views import ImageViews, TensorImages, TransformedImages, image_views

__all__ = [
    "AUGMENTATIONS",
    "BENCHMARKS",
    "SAMPLING_SCHEMES",
    "Augmentation",
    "Benchmark",
    "BenchmarkRecord",
    "ClassSampler",
    "Draw",
    "ImageConfig",
    "ImageViews",
    "LabelledDataset",
    "Request",
    "Splits",
    "TensorImages",
    "TransformedImages",
    "benchmark_record",
    "check_class_counts",
    "check_label_order",
    "class_counts",
    "class_report",
    "counts_from_labels",
    "draw_keys",
    "found_label_column",
    "image_views",
    "integers",
    "labels_of",
    "load_benchmark",
    "load_images",
    "make_long_tailed",
    "random_bits",
    "readable_labels",
    "register_augmentation",
    "register_benchmark",
    "seeded",
    "splits_of",
    "stratified_holdout",
    "uniform",
]
