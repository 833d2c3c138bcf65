"""Rules that put a factor on every class's logits: LWS and MiSLAS."""

from __future__ import annotations

from torch import nn

from ...models import Head, ScaledLinear
from .base import TRAINING_OPTIONS, Rule


class LearnableWeightScaling(Rule):
    """LWS: trains f in f_c (⟨W_c, z⟩ + b_c) with W and b frozen (Kang et al., ICLR 2020); folded at the end.

    Weight decay pulls the factors to 0.
    """

    head_kind = "lws"
    accepts = ("lws",)
    options = TRAINING_OPTIONS

    def trained(self, head: nn.Linear | Head) -> list[nn.Parameter]:
        assert isinstance(head, ScaledLinear)
        return [head.scale]


class MiSLAS(Rule):
    """Trains W, b and the factors of LWS with label-aware smoothing; folded at the end.

    Z. Zhong et al., Improving calibration for long-tailed recognition, CVPR 2021. Needs
    ``loss="label_aware_smoothing"``. The paper's shifted BatchNorm, which lets the backbone's statistics follow the
    class-balanced batches, is ``shift_batch_norm``; its first stage trains with mixup.
    """

    reference = "Zhong et al., CVPR 2021"
    head_kind = "lws"
    accepts = ("lws",)
    options = TRAINING_OPTIONS

    def check(self) -> None:
        if self.args.loss != "label_aware_smoothing":
            raise ValueError(
                f"rule='mislas' trains with label-aware smoothing, not loss={self.args.loss!r}: set "
                "loss='label_aware_smoothing', or take rule='lws' or rule='crt' for another loss."
            )
