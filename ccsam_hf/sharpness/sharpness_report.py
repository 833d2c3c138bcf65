"""One Markdown report that puts the checkpoints side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import pictures
from .budget import AnalysisSettings, Plan
from .noise import noise_name

Draw = Callable[[pictures.Results, Path], Path]
PURPOSES = {
    "samples": "what runs on the classifier's features and class gradients",
    "few_samples": "what runs the whole network again and again",
}


@dataclass(frozen=True)
class Analysis:
    """Results of one checkpoint: {measure: numbers}, the files they lie in, and how many images each used size took."""

    label: str
    results: dict[str, Any]
    files: dict[str, Path]
    samples: dict[str, int]
    absent_groups: list[str] = field(default_factory=list)


def number(value: float | None, form: str = ".3g") -> str:
    """A number for a table; undefined ones as a dash."""
    return "–" if value is None else format(value, form)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_report(
    analyses: Sequence[Analysis], split: str, folder: Path, settings: AnalysisSettings, plan: Plan
) -> Path:
    """Draw every figure and write ``report.md`` into ``folder``."""
    sections = [_head(analyses, split, settings, plan)]
    for scope in settings.scopes if "noise" in settings.measures else ():
        for direction in settings.directions:
            name = noise_name(scope, direction)
            title = f"Loss against noise: {scope}, {direction} direction"
            sections.append(_section(analyses, folder, title, name, [("", pictures.noise_figure)], _noise_text))
    for name, title, draws, text in SECTIONS:
        if any(name in analysis.results for analysis in analyses):
            sections.append(_section(analyses, folder, title, name, draws, text))
    path = folder / "report.md"
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return path


def _section(
    analyses: Sequence[Analysis],
    folder: Path,
    title: str,
    name: str,
    draws: Sequence[tuple[str, Draw]],
    text: Callable[[pictures.Results], str],
) -> str:
    results = {analysis.label: analysis.results[name] for analysis in analyses if name in analysis.results}
    lines = [f"## {title}", text(results)]
    for suffix, draw in draws:
        picture = draw(results, folder / "figures" / f"{name}{suffix}.png")
        lines.append(f"![{title}]({picture.relative_to(folder).as_posix()})")
    files = [analysis.files[name].relative_to(folder).as_posix() for analysis in analyses if name in analysis.files]
    lines.append("Data: " + ", ".join(f"[{file}]({file})" for file in files))
    return "\n\n".join(lines)


def _head(analyses: Sequence[Analysis], split: str, settings: AnalysisSettings, plan: Plan) -> str:
    batch_norm = (
        "BatchNorm statistics were re-estimated on the analysed images at every weight vector whose loss was taken; "
        "gradients and curvature hold those of the checkpoint's weights fixed."
        if settings.recalibrate_bn
        else "BatchNorm used the checkpoints' own evaluation statistics, also at perturbed weights."
    )
    absent = sorted({group for analysis in analyses for group in analysis.absent_groups})
    images = [f"{number} images for {PURPOSES[size]}" for size, number in analyses[0].samples.items()]
    lines = [
        "# Sharpness",
        f"Split: {split}. {', '.join(images)}; drawn evenly over the shot groups and weighted back to the split's own "
        "frequencies. Dropout is off. "
        f"Shot groups by training counts: {settings.thresholds.describe()}.",
        batch_norm,
        f"Sizes: {plan.sizes}; expected {plan.seconds / 60:.1f} minutes for each checkpoint.",
    ]
    if not plan.fits:
        lines.append("The smallest sizes were expected to take longer than the budget; raise --budget for more detail.")
    if absent:
        lines.append(f"Groups without classes or samples, left out: {', '.join(absent)}.")
    return "\n\n".join(lines)


def masked_text(results: pictures.Results) -> str:
    """How many losses were infinite or NaN."""
    masked = {label: result["masked"] for label, result in results.items() if result["masked"]}
    if not masked:
        return ""
    return " Not finite and masked: " + ", ".join(f"{count} losses of {label}" for label, count in masked.items()) + "."


def _noise_text(results: pictures.Results) -> str:
    parameters = {result["num_parameters"] for result in results.values()}
    rows = []
    for label, result in results.items():
        for group, curves in result["losses"]["local"].items():
            first, last = pictures.numbers(curves)[[0, -1]].mean(1)
            wide = pictures.numbers(result["losses"]["global"][group])[-1].mean()
            rows.append([label, group, f"{first:.3f}", f"{last - first:+.3f}", f"{wide - first:+.3g}"])
    ratios = next(iter(results.values()))["ratios"]
    ends = [f"rise at {ratios[name][-1]:g}" for name in ("local", "global")]
    text = f"k = {', '.join(map(str, sorted(parameters)))} weights; ‖ε‖ relative to their norm."
    return f"{text}{masked_text(results)}\n\n" + table(["checkpoint", "classes", "loss", *ends], rows)


def _landscape_text(results: pictures.Results) -> str:
    return (
        "Filter-normalised random directions (Li et al. 2018), the same for every checkpoint of one architecture; "
        "biases and normalisation layers are not moved. The cross is the checkpoint." + masked_text(results)
    )


def _path_text(results: pictures.Results) -> str:
    shares = ", ".join(f"{label} {result['explained']:.0%}" for label, result in results.items())
    return (
        "The plane of the two leading principal directions of the run's checkpoints, not filter-normalised. Share of "
        f"the path's squared distances in the plane: {shares}. BatchNorm statistics are those of the last point unless "
        "re-estimated, so early losses are those of the plane, not of training." + masked_text(results)
    )


def _radii_text(results: pictures.Results) -> str:
    rows = []
    for label, result in results.items():
        few_many, rank = result["few_over_many"], result["rank_correlation"]
        gradients = [number(result["gradient_few_over_many"]), number(result["gradient_rank_correlation"], "+.2f")]
        rows.append(
            [
                label,
                number(few_many),
                number(rank, "+.2f"),
                rarer_is_larger(few_many, rank),
                *gradients,
                str(result["zero_gradients"]),
            ]
        )
    header = ["checkpoint", "radius few/many", "radius rank corr.", "rarer class, larger radius?"]
    header += ["‖g_c‖ few/many", "‖g_c‖ rank corr.", "classes with g_c = 0"]
    text = (
        "ρ_c of Eq. 8 and ‖ε_c‖/‖w‖ = √k ρ_c/‖w‖ of Eq. 9, uncapped, from class-mean gradients of the cross-entropy in "
        "evaluation mode. few/many is the ratio of the groups' medians; the correlation is Spearman's with n_c."
    )
    return f"{text}\n\n{table(header, rows)}"


def rarer_is_larger(few_over_many: float | None, rank_correlation: float | None) -> str:
    """The answer of the two numbers together: "undecided" where they contradict each other."""
    said = [] if few_over_many is None else [few_over_many > 1]
    said += [] if rank_correlation is None else [rank_correlation < 0]
    return "–" if not said else "yes" if all(said) else "undecided" if any(said) else "no"


def _history_text(results: pictures.Results) -> str:
    return "The same numbers at earlier checkpoints of each run: above 1, or below 0, rarer classes have larger radii."


def _bound_text(results: pictures.Results) -> str:
    rows = []
    for label, result in results.items():
        overall, values = result["overall"], [v for v in result["per_class"]["value"] if v is not None]
        below = sum(value < 1 for value in values)
        ratios = f"{number(overall['relative_radius'])} / {number(overall['needed_ratio'])}"
        rows.append(
            [
                label,
                number(overall["value"]),
                ratios,
                number(result["class_mean"]),
                f"{below} of {len(values)}",
                _certified_text(result["certified"]),
            ]
        )
    header = ["checkpoint", "overall (Eq. 5)", "r* / needed r", "mean over classes (Eq. 7)", "classes below 1"]
    text = (
        "With constants as printed: first-order maximum, O(1) = 0, loss 1 − p(label) in [0, 1], at the minimising ρ*, "
        "r* = √k ρ*/‖w‖. A value below 1 is *not* a certificate. Below the needed r = √k/(2√(n − 1)) the complexity "
        "term alone exceeds 1. L_S^c is kept and n_c is used where Eq. 7's second line omits the one and prints n for "
        "the other. The certified column bounds the risk averaged over Gaussian weights, with every constant explicit; "
        "for classifier weights alone it presumes a backbone that was not trained on these images. Guessing has the "
        "risk 1 − 1/C."
    )
    return f"{text}\n\n{table([*header, 'certified (Gaussian-averaged)'], rows)}"


def _certified_text(certified: dict[str, Any]) -> str:
    if "bound" not in certified:
        return certified["reason"]
    best = min(range(len(certified["bound"])), key=certified["bound"].__getitem__)
    value = certified["bound"][best]
    verdict = "vacuous" if value >= 0.9995 else "below 1"
    return f"{value:.3f} at r = {certified['relative_width'][best]:g} ({verdict})"


def _curvature_text(results: pictures.Results) -> str:
    rows = []
    for label, result in results.items():
        for group, found in result["groups"].items():
            top, bottom = found["largest"][0], found["smallest"][0]
            ends = [f"{top:.3g} ± {found['largest_residual']:.1g}", f"{bottom:.3g} ± {found['smallest_residual']:.1g}"]
            ratio = number(-bottom / top if top > 0 else None)
            rows.append([label, group, *ends, ratio, f"{found['trace']:.3g} ± {found['trace_error']:.1g}"])
    text = (
        "Lanczos on Hessian-vector products of the cross-entropy, ± the residual within which an eigenvalue lies; the "
        "trace by Hutchinson's estimate ± its standard error. A clearly negative smallest eigenvalue means that the "
        "group's loss falls to second order along some direction: a saddle, not a minimum (Rangwani et al. 2022)."
    )
    header = ["checkpoint", "classes", "largest λ", "smallest λ", "−smallest/largest", "trace"]
    return f"{text}\n\n{table(header, rows)}"


def _sharpness_text(results: pictures.Results) -> str:
    return "max over ‖ε‖ ≤ ρ of L(θ + ε) − L(θ), lower estimates by projected ascent: one step is SAM's own."


SECTIONS: tuple[tuple[str, str, list[tuple[str, Draw]], Callable[[pictures.Results], str]], ...] = (
    (
        "landscape",
        "Loss landscape",
        [("-contours", pictures.contour_figure), ("-surfaces", pictures.surface_figure)],
        _landscape_text,
    ),
    ("path", "Optimisation path", [("", pictures.contour_figure)], _path_text),
    ("radii", "Characteristic radii", [("", pictures.radii_figure)], _radii_text),
    ("radii-history", "Radii along the run", [("", pictures.history_figure)], _history_text),
    ("bound", "PAC-Bayes bound", [("", pictures.bound_figure)], _bound_text),
    ("curvature", "Hessian", [("", pictures.curvature_figure)], _curvature_text),
    ("sharpness", "SAM's sharpness", [("", pictures.sharpness_figure)], _sharpness_text),
)
