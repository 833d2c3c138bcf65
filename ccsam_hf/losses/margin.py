"""Margins: LDAM and GCL on the cosines of a normalised classifier, and LDAM's margins on free logits."""

from collections.abc import Sequence
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from .base import CommonOptions
from .prior import LogitAdjustment
from .softmax import AdjustedCrossEntropy
from .target import checked_number


def ldam_margins(class_counts: Tensor, max_margin: float) -> Tensor:
    """m_c = max_margin * (n_c / n_min)^(-1/4): the rarest class gets the largest margin; float64 [C]."""
    counts = class_counts.to(torch.float64)
    return max_margin * (counts / counts.min()) ** -0.25


def cloud_sizes(class_counts: Tensor) -> Tensor:
    """(log n_max - log n_c) / (log n_max - log n_min): 0 for the most frequent class, 1 for the rarest; float64 [C].

    With equal counts no class has a cloud.
    """
    logs = class_counts.to(torch.float64).log()
    widths = logs.max() - logs
    return widths / widths.max() if float(widths.max()) > 0 else widths


def subtract_at(logits: Tensor, labels: Tensor, margins: Tensor) -> Tensor:
    """The logits [B, C] with margins [B] subtracted from the entries of the labels [B]."""
    return logits.scatter_add(1, labels[:, None], -margins[:, None].to(logits.dtype))


class LDAM(AdjustedCrossEntropy):
    """l_i = -log softmax(s * (cos_i - m_{y_i} onehot(y_i)))[y_i], m_c proportional to n_c^(-1/4).

    Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019. The logits are
    the plain cosines of a normalised head. A head that multiplies by s itself is served by scale=1 and a maximal
    margin of s times the usual one. Scale 1 and margin 0 are cross entropy on the given logits.

    Args:
        max_margin: of the rarest class, in cosine units; at least 0.
        scale: s, positive.
    """

    requires_cosine_head: ClassVar[bool] = True
    margins: Tensor

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        max_margin: float = 0.5,
        scale: float = 30.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, **common)
        self.max_margin = checked_number("max_margin", max_margin, low=0)
        self.logit_scale = checked_number("scale", scale, low=1e-6)
        self._keep("margins", ldam_margins(self.checked_counts(), self.max_margin))

    def adjust(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None) -> Tensor:
        return self.logit_scale * subtract_at(logits, labels, self.margins[labels])


class GCL(AdjustedCrossEntropy):
    """l_i = -log softmax(s * (cos_i - k |xi_i| * w - m onehot(y_i)))[y_i], the Gaussian clouded logits.

    xi_ic is N(0, 1/9) clipped to [-1, 1], drawn for *all* entries of every sample, and w_c = (log n_max - log n_c) /
    (log n_max - log n_min), so that the logits of rare classes are lowered more and keep pulling their samples.
    Without noise and margin it is cross entropy on s times the cosines. Li et al., Long-tailed Visual Recognition
    via Gaussian Clouded Logit Adjustment, CVPR 2022; the absolute value and the normalisation of w are those of the
    authors' release. Its backbone stage uses no margin.

    While training, `forward` wants the noise as `draw`, so that the clean and the perturbed pass share it and no
    global generator is touched. In evaluation mode there is no noise.

    Args:
        noise_scale: k, in cosine units; at least 0.
        margin: m, in cosine units; at least 0.
        scale: s, positive.
    """

    requires_cosine_head: ClassVar[bool] = True
    clouds: Tensor

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        noise_scale: float = 0.5,
        margin: float = 0.0,
        scale: float = 30.0,
        **common: Unpack[CommonOptions],
    ) -> None:
        super().__init__(num_classes, class_counts, **common)
        self.margin = checked_number("margin", margin, low=0)
        self.logit_scale = checked_number("scale", scale, low=1e-6)
        clouds = checked_number("noise_scale", noise_scale, low=0) * cloud_sizes(self.checked_counts())
        self.draws_noise = bool(clouds.max() > 0)
        self._keep("clouds", clouds)

    def draw(
        self, shape: torch.Size | tuple[int, ...], generator: torch.Generator, device: torch.device | str
    ) -> Tensor | None:
        """xi of one step, [B, C]: drawn where the generator lives, then moved."""
        if not self.draws_noise:
            return None
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=self.dtype)
        return (noise / 3).clamp(-1, 1).to(device)

    def adjust(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None) -> Tensor:
        clouded = logits
        if draw is not None:
            clouded = logits - draw.abs().to(logits.dtype) * self.clouds.to(logits.dtype)
        elif self.draws_noise and self.training:
            raise ValueError("GCL trains with noise: pass draw=loss.draw(logits.shape, generator, device)")
        return self.logit_scale * subtract_at(clouded, labels, logits.new_full(labels.shape, self.margin))


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
