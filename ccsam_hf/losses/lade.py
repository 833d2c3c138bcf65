"""LADE: cross entropy with the training prior, and a regulariser that couples the batch."""

from collections.abc import Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from ccsam_hf.losses.base import CommonOptions, full_precision
from ccsam_hf.losses.checks import checked_choice, checked_number
from ccsam_hf.losses.prior import BalancedSoftmax
from ccsam_hf.losses.target import Target

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

    def regulariser(self, logits: Tensor, target: Target) -> Tensor | None:
        self.check_target(target)
        wide = full_precision(logits)
        # With tau = 1 the shift of the logits is the log prior itself.
        priors = self.prior_shift.to(wide.dtype)
        return self.alpha * lade_regulariser(wide, target.labels, priors, self.remine_lambda, self.importance)
