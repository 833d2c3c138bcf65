"""The rows of the paper's tables as named combinations of losses, perturbations, classifiers and rules.

The paper is H. Zhou et al., Class-Conditional Sharpness-Aware Minimization for Deep Long-Tailed Recognition, CVPR 2023.
``python -m ccsam_hf methods`` lists them; ``--method NAME`` of a recipe sets one's options beneath file and flags.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Options = Mapping[str, Any]
# Overall top-1 accuracy in % by benchmark and imbalance ratio.
Figures = Mapping[tuple[str, int], float]
PAPER = "Zhou et al., CVPR 2023, Table 1, ResNet-32"


@dataclass(frozen=True)
class Method:
    """One named combination.

    title: as the tables print it. reference: whose method. formula: what is minimised, in one line. stage1, stage2:
    options of `CCSAMTrainingArguments` and `ClassifierTrainingArguments`, stage2 None where there is no second stage.
    augmentation: where it is part of the method. deferred: share of the epochs before class weights count (DRW).
    lr_decay: factor at the milestones, where the method's papers have another than 0.1. paper: figures that the paper
    prints for it, as far as they are known here. note: what differs, and what is tuned where.
    """

    name: str
    title: str
    reference: str
    formula: str
    stage1: Options
    stage2: Options | None = None
    augmentation: str | None = None
    deferred: float | None = None
    lr_decay: float | None = None
    paper: Figures | None = None
    note: str = ""

    @property
    def classifier(self) -> str:
        """The kind of classifier that stage 1 trains."""
        return str(self.stage1.get("classifier", "linear"))

    def sections(self, epochs: float, milestones: bool = True) -> dict[str, dict[str, Any]]:
        """Options as the sections of a run of ``epochs``; milestones: whether its schedule has any (``lr_decay``)."""
        first, benchmark = dict(self.stage1), {"second_stage": self.stage2 is not None, "control": False}
        if self.deferred is not None:
            first["loss_args"] = {**first.get("loss_args", {}), "drw_epoch": int(self.deferred * epochs)}
        if self.lr_decay is not None and milestones:
            first["lr_decay"] = self.lr_decay
        return {
            "benchmark": benchmark | ({} if self.augmentation is None else {"augmentation": self.augmentation}),
            "stage1": first,
            "stage2": dict(self.stage2 or {}),
        }


PLAIN: dict[str, Any] = {"perturbation": "none"}
# 160 of 200 epochs, when the learning rate falls for the first time (Cao et al., NeurIPS 2019).
DEFERRED = 0.8
# Whole-network radii of 0.5 to 0.8, stepped up over training, are published for LDAM-DRW and CE-DRW with SAM on CIFAR.
SAM: dict[str, Any] = {"perturbation": "sam", "radius": 0.5}
CRT: dict[str, Any] = {"rule": "crt", "reinitialize_classifier": True}
COSINE: dict[str, Any] = {"classifier": "cosine"}
LDAM_DRW: dict[str, Any] = {**COSINE, "loss": "ldam_drw"}
GCL: dict[str, Any] = {**COSINE, "loss": "gcl"}
CE_FORMULA = "mean_i −log softmax(logits_i)[y_i]"
CCSAM_FORMULA = "mean_i l_i(w + ε_{y_i}), ε_c = √k ρ_c g_c/‖g_c‖, ρ_c = (‖w‖/2‖g_c‖)^½ k^-¼ (n_c − 1)^-¼ (Eq. 8, 9)"
STAGE2_FORMULA = "(1 − t/T) l(z) + (t/T) l(z + λ ∇_z l/‖∇_z l‖) on class-balanced batches (Eq. 12, 14)"
RADIUS_NOTE = "The printed radius has no usable scale: ε is scaled to a mean relative radius, see relative_radius."


def _figures(cifar10: Sequence[float], cifar100: Sequence[float]) -> Figures:
    """Imbalance ratios 200, 100, 50."""
    ratios = (200, 100, 50)
    columns = {("cifar10-lt", r): v for r, v in zip(ratios, cifar10, strict=True)}
    return MappingProxyType(
        columns | {("cifar100-lt", r): v for r, v in zip(ratios, cifar100, strict=True)},
    )


ROWS = (
    Method(
        "ce",
        "CE",
        "softmax cross entropy",
        CE_FORMULA,
        PLAIN,
        paper=_figures((65.68, 70.70, 74.81), (34.84, 38.43, 43.90)),
    ),
    Method(
        "ce_mixup",
        "CE + mixup",
        "H. Zhang et al., mixup, ICLR 2018",
        "λ l(x̃, y_i) + (1 − λ) l(x̃, y_j) at x̃ = λ x_i + (1 − λ) x_j, λ ~ Beta(1, 1)",
        {**PLAIN, "mixup_alpha": 1.0},
    ),
    Method(
        "ldam_drw",
        "LDAM-DRW",
        "Cao et al., NeurIPS 2019",
        "−log softmax(s (cos_i − m_{y_i} onehot(y_i)))[y_i], m_c ∝ n_c^-¼, later weighted by effective numbers",
        {**PLAIN, **LDAM_DRW},
        deferred=DEFERRED,
        lr_decay=0.01,
    ),
    Method(
        "ldam_drw_sam",
        "LDAM-DRW + SAM",
        "Rangwani et al., NeurIPS 2022",
        "LDAM-DRW at w + ρ ∇L/‖∇L‖, all weights",
        {**SAM, **LDAM_DRW},
        deferred=DEFERRED,
        lr_decay=0.01,
        note="ρ is constant here; published runs step it up to 0.5 to 0.8 (radius_schedule=step).",
    ),
    Method(
        "vs_sam",
        "VS + SAM",
        "Kini et al., NeurIPS 2021; Rangwani et al., NeurIPS 2022",
        "−log softmax((n_c/n_max)^γ logits + τ log π)[y] at w + ρ ∇L/‖∇L‖, all weights",
        {**SAM, "loss": "vs"},
        lr_decay=0.01,
        note="γ and τ are tuned for each data set (γ 0.05 to 0.3): loss_args.",
    ),
    Method(
        "ce_mixup_crt",
        "CE + mixup + cRT",
        "Kang et al., ICLR 2020",
        "CE + mixup; then a fresh classifier on class-balanced batches over the frozen backbone",
        {**PLAIN, "mixup_alpha": 1.0},
        CRT,
    ),
    Method(
        "tde",
        "De-confound-TDE",
        "Tang et al., NeurIPS 2020",
        "CE on multi-head cosines; prediction without the features' moving mean direction",
        {**PLAIN, "classifier": "tde"},
        note="No linear layer has these logits: published with the package's code.",
    ),
    Method(
        "mislas",
        "MiSLAS",
        "Zhong et al., CVPR 2021",
        "CE + mixup; then label-aware smoothing with scaled weights and shifted BatchNorm on class-balanced batches",
        {**PLAIN, "mixup_alpha": 1.0},
        {"rule": "mislas", "loss": "label_aware_smoothing", "shift_batch_norm": True},
        note="The smoothing of head and tail is tuned for each data set: loss_args.",
    ),
    Method(
        "gcl",
        "GCL",
        "Li et al., CVPR 2022",
        "−log softmax(s (cos_i − k |ξ_i| w))[y_i], ξ Gaussian; then the classifier by effective-number sampling",
        {**PLAIN, **GCL},
        {"rule": "crt", "loss": "gcl", "sampling": "effective_number"},
    ),
    Method(
        "tau_norm",
        "τ-norm",
        "Kang et al., ICLR 2020",
        "CE; then W_c ← W_c/‖W_c‖^τ",
        PLAIN,
        # Nothing is trained: weight decay would be refused as having no effect.
        {"rule": "tau_norm", "decay_all_parameters": False},
        note="τ = 1; choose it on held-out training images: --holdout true --stage2.tau T.",
    ),
    Method(
        "balanced_softmax",
        "Balanced Softmax",
        "Ren et al., NeurIPS 2020",
        "−log (n_y e^{logits_y} / Σ_c n_c e^{logits_c})",
        {**PLAIN, "loss": "balanced_softmax"},
        note="Without the meta sampler of the reference.",
    ),
    Method(
        "lade",
        "LADE",
        "Hong et al., CVPR 2021",
        "Balanced Softmax + α Σ_c π_c (−mean_{i∈c} f_ic + s_c + λ s_c²), s_c the importance-weighted log mean of e^f",
        {**PLAIN, "loss": "lade"},
    ),
    Method(
        "disalign",
        "DisAlign",
        "Zhang et al., CVPR 2021",
        "CE; then σ (α ⊙ logits + β) + (1 − σ) logits with losses weighted by n_c^-ρ, W frozen",
        PLAIN,
        {"rule": "disalign"},
        note="No linear layer has these logits: published with the package's code.",
    ),
    Method(
        "reslt",
        "ResLT",
        "Cui et al., TPAMI 2022",
        "(1 − β) l(Σ_k logits_k) + β · mean of l(logits_k) over the samples of branch k: all, medium + few, few",
        {**PLAIN, "classifier": "reslt"},
        note="Branches by shot group; β is tuned for each data set: classifier_args.",
    ),
    Method(
        "crt",
        "cRT",
        "Kang et al., ICLR 2020; Table 2's base",
        "CE; then a fresh classifier on class-balanced batches over the frozen backbone",
        PLAIN,
        CRT,
    ),
    Method(
        "crt_dir",
        "cRT + dir",
        "Table 2",
        "stage 1 along each class's own gradient, one length for all classes; then cRT",
        {"perturbation": "ccsam_direction"},
        CRT,
        note=f"Length: the batch's mean. {RADIUS_NOTE}",
    ),
    Method(
        "crt_mag",
        "cRT + mag",
        "Table 2",
        "stage 1 with Eq. 8's length for each class, in a random direction; then cRT",
        {"perturbation": "ccsam_magnitude"},
        CRT,
        note=f"Direction: Gaussian. {RADIUS_NOTE}",
    ),
    Method(
        "crt_dir_mag",
        "cRT + dir + mag",
        "Table 2",
        f"{CCSAM_FORMULA}; then cRT",
        {"perturbation": "ccsam"},
        CRT,
        note=RADIUS_NOTE,
    ),
    Method(
        "ccsam",
        "CC-SAM",
        "Zhou et al., CVPR 2023; Table 2's cRT + dir + mag + stage 2",
        f"{CCSAM_FORMULA}; then {STAGE2_FORMULA}",
        {"perturbation": "ccsam"},
        {"rule": "adversarial"},
        paper=_figures((80.94, 83.92, 86.22), (45.66, 50.83, 53.91)),
        note=f"{RADIUS_NOTE} The authors advise --augmentation autoaugment_cutout.",
    ),
)
METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in ROWS})
# Rows of the tables that are not offered, with the reason.
LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "BGP": "Wang et al., Balanced gradient penalty, ACM MM 2022: no source for its formula was at hand, and a "
        "guess would bear its name wrongly."
    }
)


def find_method(name: str) -> Method:
    """The method of that name; ValueError with the choices."""
    if name in LEFT_OUT or name.upper() in LEFT_OUT:
        raise ValueError(f"method {name!r} is not offered: {LEFT_OUT[name.upper()]}")
    if name not in METHODS:
        raise ValueError(f"There is no method {name!r}; choose one of {', '.join(METHODS)}.")
    return METHODS[name]


def describe(method: Method) -> str:
    """Name, formula, parts, figures and notes as indented lines."""
    lines = [f"{method.name}: {method.title} ({method.reference})", f"L = {method.formula}"]
    lines.append(f"stage 1: {_worded(method.stage1)}" + _schedule(method))
    if method.stage2 is not None:
        lines.append(f"stage 2: {_worded(method.stage2)}")
    if method.paper:
        figures = ", ".join(f"{name} IR {ratio} {value:.2f}" for (name, ratio), value in method.paper.items())
        lines.append(f"{PAPER}: {figures}")
    if method.note:
        lines.append(method.note)
    first, *rest = lines
    return "\n".join(
        [first, *(textwrap.fill(line, 110, initial_indent="    ", subsequent_indent=" " * 8) for line in rest)]
    )


def _worded(options: Options) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _schedule(method: Method) -> str:
    parts = []
    if method.deferred is not None:
        parts.append(f"class weights from {method.deferred:.0%} of the epochs")
    if method.lr_decay is not None:
        parts.append(f"lr_decay {method.lr_decay}")
    return "".join(f", {part}" for part in parts)


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m ccsam_hf methods [NAME ...]``."""
    words = [word for word in argv or () if word not in ("-h", "--help")]
    for method in [find_method(word) for word in words] or ROWS:
        print(describe(method), end="\n\n")
    if not words:
        for title, reason in LEFT_OUT.items():
            print(textwrap.fill(f"Left out, {title}: {reason}", 110, subsequent_indent="    "))
