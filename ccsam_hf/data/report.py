"""The class distribution of a loaded data set as text."""

from __future__ import annotations

from ccsam_hf.data.benchmarks import Benchmark
from ccsam_hf.shots import ShotThresholds


def class_report(data: Benchmark, rows: int = 40, thresholds: ShotThresholds | None = None) -> str:
    """Sizes, imbalance ratio, many/medium/few classes, counts from the largest class down, and the few-shot names.

    At most `rows` classes are listed: the largest and the smallest ones. thresholds: the benchmark's by default.
    """
    counts, names = data.class_counts, data.label_names
    thresholds = thresholds or data.record.thresholds
    groups = thresholds.masks(counts)
    validation = "no" if data.validation is None else f"{len(data.validation):,}"
    sizes = f"{len(data.train):,} training, {validation} validation, {len(data.test):,} test images"
    lines = [
        f"{data.record.title}: {sizes}, {data.num_classes:,} classes, imbalance ratio {data.imbalance_ratio:g}",
        f"Shots (many {thresholds.many}, few {thresholds.few}, {thresholds.boundaries}): "
        + ", ".join(f"{int(mask.sum())} {group}" for group, mask in groups.items()),
    ]
    order = counts.argsort(descending=True, stable=True).tolist()
    shown = order if len(order) <= rows else [*order[: rows // 2], *order[-(rows // 2) :]]
    group_of = {c: group for group, mask in groups.items() for c in mask.nonzero().flatten().tolist()}
    width = max(len(names[c]) for c in shown)
    lines += [f"  {names[c]:<{width}}  {int(counts[c]):>7,}  {group_of[c]}" for c in shown]
    if len(shown) < len(order):
        lines.insert(2 + rows // 2, f"  ... {len(order) - len(shown):,} classes between")
    few = [names[c] for c in order if groups["few"][c]]
    lines.append("Few-shot classes: " + (", ".join(few[:rows]) + (", ..." if len(few) > rows else "") or "none"))
    return "\n".join(lines)
