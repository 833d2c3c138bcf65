"""The short table that a command prints."""

from collections.abc import Mapping
from typing import Any

from ccsam_hf.metrics.bootstrap import PairedFigure
from ccsam_hf.shots import SHOT_GROUPS

ROWS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    **{name: f"{name}-shot" for name in SHOT_GROUPS},
    "harmonic_mean": "harmonic mean",
    "worst_decile": "worst decile",
    "macro_f1": "macro F1",
}


def summary_table(metrics: Mapping[str, Any]) -> str:
    """The closed-set, label-shift and open-set figures of metrics.json in a screenful."""
    closed = metrics["closed_set"]
    rules, sizes = closed["thresholds"], closed["group_sizes"]
    signs = (">", "<") if rules["boundaries"] == "strict" else (">=", "<=")
    lines = [
        f"{closed['images']} images, {closed['classes']} classes; training counts: many {signs[0]} {rules['many']} "
        f"({sizes['many']}), few {signs[1]} {rules['few']} ({sizes['few']}), medium the rest ({sizes['medium']})"
    ]
    for name, title in ROWS.items():
        interval = metrics.get("intervals", {}).get(name)
        lines.append(f"{title:<20}{percent(closed[name])}{_between(interval)}")
    if closed["top5"] is not None:
        lines.append(f"{'top-5 accuracy':<20}{percent(closed['top5']['accuracy'])}")
    calibration = closed["calibration"]["overall"]
    lines.append(f"{'ECE':<20}{percent(calibration['ece'])}   NLL {calibration['nll']:.4f}")
    for name, shifted in metrics.get("label_shift", {}).items():
        with_prior = percent(shifted["accuracy_with_target_prior"])
        lines.append(f"{name:<20}{percent(shifted['accuracy'])}   with the target's prior {with_prior}")
    for name, figures in metrics.get("open_set", {}).items():
        lines.append(f"{'open: ' + name:<20}{_open_line(figures)}")
    return "\n".join(lines)


def paired_table(figures: Mapping[str, PairedFigure | None]) -> str:
    """Differences between two checkpoints, in percentage points."""
    lines = [f"{'difference':<20}{'points':>8}   p-value"]
    for name, figure in figures.items():
        if figure is not None:
            between = _between(figure.interval)
            lines.append(f"{ROWS[name]:<20}{100 * figure.difference:>8.2f}   {figure.p_value:.4f}{between}")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{100 * value:>7.2f}%"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"   [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"


def _open_line(figures: Mapping[str, Any]) -> str:
    found = f"AUROC {percent(figures['auroc']).strip()}, FPR at 95 % TPR {percent(figures['fpr_at_95_tpr']).strip()}"
    if "threshold" not in figures:
        return f"{found}; {figures['threshold_rule']}"
    before, never = figures["f_measure_before_2020"], figures["f_measure_never_rejecting"]
    return (
        f"F {figures['f_measure']:.4f} (before 2020 {before:.4f}, never rejecting {never:.4f}) at "
        f"{figures['threshold']:.4g}, {figures['threshold_rule']}; {found}"
    )
