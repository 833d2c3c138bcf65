"""`evaluate.load(FOLDER_OF_THIS_FILE)`: many/medium/few-shot accuracy as an `evaluate.Metric`, without a network."""

import datasets
import evaluate

from ccsam_hf.metrics.accuracy import long_tail_accuracy
from ccsam_hf.shots import Boundaries

DESCRIPTION = "Overall, balanced, many-, medium- and few-shot accuracy; groups by training counts, as fractions."
CITATION = "Liu et al., Large-Scale Long-Tailed Recognition in an Open World, CVPR 2019 (protocol)."
INPUTS = """
Args:
    predictions: predicted class of each image.
    references: true class of each image.
    class_counts: number of training images of each class, in label order.
    many, few, boundaries: shot thresholds, 100, 20 and "strict" by default.
Returns:
    accuracy, balanced_accuracy, many, medium, few; None for a group without test images.
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class LongTailAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions: list[int],
        references: list[int],
        class_counts: list[int],
        many: int = 100,
        few: int = 20,
        boundaries: Boundaries = "strict",
    ) -> dict[str, float | None]:
        return long_tail_accuracy(predictions, references, class_counts, many, few, boundaries)
