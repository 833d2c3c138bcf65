"""The training prior in the softmax: logit adjustment in training and after it, Balanced Softmax, VS loss, LADE."""

import math
from collections.abc import Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from .base import CommonOptions, full_precision
from .softmax import AdjustedCrossEntropy
from .target import Target, checked_choice, checked_class_counts, checked_number


def prior_correction(class_counts: Tensor | Sequence[int], tau: float = 1.0) -> Tensor:
    """-tau log pi_c with pi_c = n_c / N, float64 [C]: what logit adjustment adds after training, and takes off in it.

    Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021, Eq. 9 (after training); its negative is the
    shift of Eq. 10 (in training).

    Args:
        class_counts: the training set's [C], all at least 1 unless tau is 0.
        tau: any finite number; 0 corrects nothing, 1 the full prior.

    Raises:
        ValueError: tau is not finite, or a class has no training sample.

    Example:
        >>> [round(value, 4) for value in prior_correction([3, 1]).tolist()]
        [0.2877, 1.3863]
    """
    if not math.isfinite(tau):
        raise ValueError(f"The logit adjustment's strength is {tau}; use a finite number, 1 for the full prior.")
    counts = torch.as_tensor(class_counts).detach().cpu().to(torch.float64)
    if tau == 0:
        return torch.zeros_like(counts)
    if bool((counts <= 0).any()):
        raise ValueError(
            f"Class {int((counts <= 0).nonzero()[0])} has no training image, so its logit adjustment is infinite; "
            "evaluate without logit adjustment."
        )
    return -tau * (counts.log() - counts.sum().log())


def post_hoc_logit_adjustment(logits: Tensor, class_counts: Tensor | Sequence[int], tau: float = 1.0) -> Tensor:
    """Logits of a model that was trained with plain cross entropy, rid of the training prior.

    logits_c + `prior_correction`_c. tau = 0 changes nothing. Not for a model trained with one of this module's losses:
    their logits already lack the prior.

    Args:
        logits: [..., C].
        class_counts: the training set's [C], all at least 1.
        tau: at least 0.

    Returns:
        [..., C], in the logits' dtype.
    """
    counts = checked_class_counts(class_counts, logits.shape[-1], user="post-hoc logit adjustment")
    correction = prior_correction(counts, checked_number("tau", tau, low=0))
    return logits + correction.to(device=logits.device, dtype=logits.dtype)


class LogitAdjustment(AdjustedCrossEntropy):
    """l_i = -log softmax(logits_i + tau log pi)[y_i] with pi_c = n_c / N; tau = 0 is cross entropy.

    Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021, Eq. 10. The adjustment belongs to training:
    predictions are the argmax of the plain logits.

    Args:
        tau: at least 0.
    """

    prior_shift: Tensor

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        tau: float = 1.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, **common)
        self.tau = checked_number("tau", tau, low=0)
        self._keep("prior_shift", -prior_correction(self.checked_counts(), self.tau))

    def adjust(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None) -> Tensor:
        return logits + self.prior_shift.to(logits.dtype)


class BalancedSoftmax(LogitAdjustment):
    """l_i = -log (n_y e^{logits_y} / sum_c n_c e^{logits_c}): logit adjustment with tau = 1.

    Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020, Theorem 1. Counts and priors
    differ by a shift common to all classes, which a softmax does not see.
    """

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, tau=1.0, **common)


class VectorScaling(AdjustedCrossEntropy):
    """l_i = -log softmax(a * logits_i + tau log pi)[y_i] with a_c = (n_c / n_max)^gamma: the VS loss.

    The multiplicative part a acts in the terminal phase of training, where an additive one no longer moves the
    margins; the additive part speeds up the beginning. gamma = 0 is logit adjustment. Kini et al., Label-Imbalanced
    and Group-Sensitive Classification under Overparameterization, NeurIPS 2021; its weights omega_y are this
    package's class weights.

    Args:
        gamma: at least 0.
        tau: at least 0.
    """

    prior_shift: Tensor
    slopes: Tensor

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        gamma: float = 0.3,
        tau: float = 1.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, **common)
        self.gamma = checked_number("gamma", gamma, low=0)
        self.tau = checked_number("tau", tau, low=0)
        counts = self.checked_counts().to(torch.float64)
        self._keep("slopes", (counts / counts.max()) ** self.gamma)
        self._keep("prior_shift", -prior_correction(counts, self.tau))

    def adjust(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None) -> Tensor:
        return logits * self.slopes.to(logits.dtype) + self.prior_shift.to(logits.dtype)


IMPORTANCES = ("sample", "column")


def lade_regulariser(
    logits: Tensor, labels: Tensor, log_priors: Tensor, remine_lambda: float, importance: str = "sample"
) -> Tensor:
    """sum_c pi_c (-mean_{i in c} f_ic + s_c + lambda s_c^2), which makes f_c estimate log p_u(x | c) / p_u(x).

    s_c = log (1/B) sum_i omega_i exp f_ic estimates log E_u[exp f_c] under the uniform label distribution p_u from
    samples of the training distribution p_s, hence the importance weights omega_i = p_u(y_i) / p_s(y_i) =
    1 / (C pi_{y_i}). A class without a sample in the batch has no first term.

    Args:
        logits: f, [B, C].
        labels: int64 [B].
        log_priors: log pi, [C].
        remine_lambda: lambda.
        importance: "sample" for omega_i as derived; "column" for 1 / (C pi_c), which depends on the class of the
            logit instead of the class of the sample, as the authors' release has it.

    Returns:
        A scalar.
    """
    batch, num_classes = logits.shape
    ones = torch.ones_like(labels, dtype=logits.dtype)
    counts = logits.new_zeros(num_classes).scatter_add(0, labels, ones)
    true = logits.gather(1, labels[:, None]).squeeze(1)
    first = logits.new_zeros(num_classes).scatter_add(0, labels, true) / counts.clamp(min=1)
    log_omega = log_priors[labels][:, None] if importance == "sample" else log_priors
    uniform = ones.new_tensor(num_classes).log()
    second = (logits - log_omega - uniform).logsumexp(0) - ones.new_tensor(batch).log()
    return (log_priors.exp() * (second + remine_lambda * second.square() - first)).sum()


class LADE(BalancedSoftmax):
    """Per sample: -log softmax(logits_i + log pi)[y_i] (Eq. 18-19); per batch: alpha times `lade_regulariser` (Eq. 16).

    Hong et al., Disentangling Label Distribution for Long-tailed Visual Recognition, CVPR 2021; their sum is Eq. 20.
    The two parts stay apart, because only the per-sample part has a gradient per class that can be perturbed. The
    regulariser needs to know which class a sample is drawn from, so there is no mixed form.

    Args:
        alpha: weight of the regulariser, at least 0.
        remine_lambda: weight of the squared term, at least 0.
        importance: see `lade_regulariser`.
    """

    supports_mixed_targets: ClassVar[bool] = False
    couples_batch: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        alpha: float = 0.1,
        remine_lambda: float = 0.1,
        importance: str = "sample",
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, **common)
        self.alpha = checked_number("alpha", alpha, low=0)
        self.remine_lambda = checked_number("remine_lambda", remine_lambda, low=0)
        self.importance = checked_choice("importance", importance, IMPORTANCES)

    def regulariser(self, logits: Tensor, target: Target, features: Tensor | None = None) -> Tensor | None:
        self.check_target(target)
        wide = full_precision(logits)
        # With tau = 1 the shift of the logits is the log prior itself.
        priors = self.prior_shift.to(wide.dtype)
        return self.alpha * lade_regulariser(wide, target.labels, priors, self.remine_lambda, self.importance)
