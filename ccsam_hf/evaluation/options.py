"""Everything that can be chosen about an evaluation; recorded whole in its output."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from ccsam_hf.metrics.calibration import DEFAULT_BINS
from ccsam_hf.metrics.open_set_scores import SCORERS
from ccsam_hf.shots import ShotThresholds

SourcePrior = Literal["train", "uniform"]
OPEN_SCORERS = (*SCORERS, "openmax")


@dataclass(frozen=True)
class EvaluationOptions:
    """How the closed-set figures are made.

    logit_adjustment: τ of post-hoc logit adjustment, for every figure (0: logits as they are).
    targets: shifted test distributions to report, such as "forward-50", "uniform", "backward-50".
    source_prior: the class prior that the logits presume, which a target's prior replaces: "train" (cross entropy),
        "uniform" (class-balanced training, balanced softmax). By default what the checkpoint records
        (config.training_prior); where it records nothing, figures with the target's prior are left out.
    bootstrap: replicates behind the confidence intervals (0: none); level: their coverage.
    """

    thresholds: ShotThresholds = field(default_factory=ShotThresholds)
    calibration_bins: int = DEFAULT_BINS
    logit_adjustment: float = 0.0
    targets: tuple[str, ...] = ()
    source_prior: SourcePrior | None = None
    bootstrap: int = 1000
    level: float = 0.95
    seed: int = 0
    batch_size: int = 256
    num_workers: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; use at least 1.")
        if self.bootstrap < 0:
            raise ValueError(f"bootstrap is {self.bootstrap}; use 0 for no intervals, 1000 for usual ones.")
        if self.bootstrap == 0 and (self.level, self.seed) != (0.95, 0):
            raise ValueError("level and seed belong to the bootstrap and have no effect with bootstrap=0.")
        if self.source_prior not in (None, *get_args(SourcePrior)):
            raise ValueError(
                f"source_prior is {self.source_prior!r}; choose one of {', '.join(get_args(SourcePrior))}."
            )
        if self.source_prior is not None and not self.targets:
            raise ValueError(
                "source_prior corrects predictions for shifted test sets and has no effect without targets."
            )


@dataclass(frozen=True)
class OpenSetOptions:
    """How images of unknown classes are told apart.

    threshold: reject below this score, where no hold-out is given and the score is a probability (0.1: OLTR).
    holdout_recall: share of known hold-out images to accept, where a hold-out without open images is given.
    """

    scorers: tuple[str, ...] = ("probability",)
    threshold: float = 0.1
    holdout_recall: float = 0.95
    tail_size: int = 20
    alpha: int = 10

    def __post_init__(self) -> None:
        unknown = [name for name in self.scorers if name not in OPEN_SCORERS]
        if unknown or not self.scorers:
            raise ValueError(f"Open-set scorers {unknown} are unknown; choose from {', '.join(OPEN_SCORERS)}.")
