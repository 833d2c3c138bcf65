"""Losses that tell the softmax how frequent the classes are: logit adjustment, Balanced Softmax, margins, VS loss."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from ccsam_hf.losses.base import CommonOptions
from ccsam_hf.losses.checks import checked_class_counts, checked_number, log_prior
from ccsam_hf.losses.cosine import ldam_margins, subtract_at
from ccsam_hf.losses.cross_entropy import AdjustedCrossEntropy


def post_hoc_logit_adjustment(logits: Tensor, class_counts: Tensor | Sequence[int], tau: float = 1.0) -> Tensor:
    """Logits of a model that was trained with plain cross entropy, rid of the training prior.

    logits_c - tau log pi_c, pi_c = n_c / N. Menon et al., Long-tail Learning via Logit Adjustment, ICLR 2021, Eq. 9.
    tau = 0 changes nothing. Not for a model trained with one of this module's losses: their logits already lack the
    prior.

    Args:
        logits: [..., C].
        class_counts: the training set's [C], all at least 1.
        tau: at least 0.

    Returns:
        [..., C], in the logits' dtype.
    """
    counts = checked_class_counts(class_counts, logits.shape[-1], user="post-hoc logit adjustment")
    shift = checked_number("tau", tau, low=0) * log_prior(counts)
    return logits - shift.to(device=logits.device, dtype=logits.dtype)


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
        self._keep("prior_shift", self.tau * log_prior(self.checked_counts()))

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


class LogitMargin(LogitAdjustment):
    """l_i = -log softmax(logits_i + tau log pi - m_{y_i} onehot(y_i))[y_i]: LDAM's margins on a linear classifier.

    m_c = mean_margin * n_c^(-1/4) / sum_k pi_k n_k^(-1/4), in units of the logits, so that the true class's logit is
    lowered by mean_margin on average over the training samples. LDAM (Cao et al., NeurIPS 2019) sets such margins on
    cosines, whose scale is fixed; on free logits they can be outgrown. Here they are the control of a perturbation
    that lowers the true logits by as much (`logit_shift` in the logs). mean_margin = 0 is logit adjustment, with
    tau = 0 cross entropy.

    Args:
        mean_margin: at least 0.
        tau: of the prior, at least 0.
    """

    margins: Tensor

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        mean_margin: float = 1.0,
        tau: float = 0.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, tau=tau, **common)
        counts = self.checked_counts().to(torch.float64)
        shape = ldam_margins(counts, 1.0)
        mean = (shape * counts).sum() / counts.sum()
        self._keep("margins", checked_number("mean_margin", mean_margin, low=0) / mean * shape)

    def adjust(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None) -> Tensor:
        return subtract_at(super().adjust(logits, labels, draw), labels, self.margins[labels])


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
        self._keep("prior_shift", self.tau * log_prior(counts))

    def adjust(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None) -> Tensor:
        return logits * self.slopes.to(logits.dtype) + self.prior_shift.to(logits.dtype)
