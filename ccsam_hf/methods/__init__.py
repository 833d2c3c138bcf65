"""The rows of the paper's tables as named combinations of losses, perturbations, classifiers and rules.

The paper is Z. Zhou et al., Class-Conditional Sharpness-Aware Minimization for Deep Long-Tailed Recognition, CVPR 2023.
``python -m ccsam_hf methods`` lists them with the source of every hyper-parameter; ``--method NAME`` of a recipe sets
one's options beneath file and flags, with the values that its authors published for the recipe's benchmark.
"""

from .listing import describe, main
from .printed import INCONSISTENT, PRINTED, PrintedRow, printed
from .record import Method, Published, Setting
from .rows import LEFT_OUT, METHODS, ROWS, find_method

__all__ = [
    "INCONSISTENT",
    "LEFT_OUT",
    "METHODS",
    "PRINTED",
    "ROWS",
    "Method",
    "PrintedRow",
    "Published",
    "Setting",
    "describe",
    "find_method",
    "main",
    "printed",
]
