"""Long-tailed splits, benchmarks, samplers, augmentations and model inputs."""

from .benchmarks import load_benchmark
from .counts import LabelledDataset, class_counts, counts_from_labels, labels_of
from .draws import Draw, draw_keys, integers, random_bits, seeded, uniform
from .folder import load_images
from .long_tail import make_long_tailed, stratified_holdout
from .records import BENCHMARKS, Benchmark, BenchmarkRecord, benchmark_record, class_report
from .samplers import SAMPLING_SCHEMES, ClassSampler
from .views import ImageConfig, ImageViews, TensorImages, TransformedImages, image_views

__all__ = [
    "BENCHMARKS",
    "SAMPLING_SCHEMES",
    "Benchmark",
    "BenchmarkRecord",
    "ClassSampler",
    "Draw",
    "ImageConfig",
    "ImageViews",
    "LabelledDataset",
    "TensorImages",
    "TransformedImages",
    "benchmark_record",
    "class_counts",
    "class_report",
    "counts_from_labels",
    "draw_keys",
    "image_views",
    "integers",
    "labels_of",
    "load_benchmark",
    "load_images",
    "make_long_tailed",
    "random_bits",
    "seeded",
    "stratified_holdout",
    "uniform",
]
