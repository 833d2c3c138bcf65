"""Long-tailed splits, benchmarks, samplers and transforms."""

from ccsam_hf.data.benchmarks import Benchmark, load_benchmark
from ccsam_hf.data.counts import class_counts, counts_from_labels, labels_of
from ccsam_hf.data.draws import Draw, draw_keys, integers, random_bits, seeded, uniform
from ccsam_hf.data.image_folder import load_images
from ccsam_hf.data.images import TensorImages
from ccsam_hf.data.labelled import LabelledDataset
from ccsam_hf.data.records import BENCHMARKS, BenchmarkRecord, benchmark_record
from ccsam_hf.data.report import class_report
from ccsam_hf.data.samplers import SAMPLING_SCHEMES, ClassSampler
from ccsam_hf.data.splits import make_long_tailed, stratified_holdout
from ccsam_hf.data.transforms import ImageConfig, TransformedImages
from ccsam_hf.data.views import ImageViews, image_views

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
