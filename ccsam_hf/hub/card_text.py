"""The sections of a model card: a record in, Markdown out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..shots import ShotThresholds
from .record import HEADLINE, LONG_TAIL_FILE, DataRecord, ModelRecord, RunRecord, StageRecord

SPLIT = {"imbalance_ratio": "imbalance ratio", "split_seed": "split seed"}
CLASSIFICATION = {"image-classification": "Image classification", "text-classification": "Text classification"}
STAGES = {"control": "Control", "stage1": "Stage 1", "stage2": "Stage 2"}
COLUMNS = {
    "accuracy": "Overall",
    "many": "Many",
    "medium": "Medium",
    "few": "Few",
    "balanced_accuracy": "Balanced",
    "ece": "ECE",
}
NEVER_EVALUATED = "This checkpoint has not been evaluated: no figures are claimed for it."
FIGURES = {
    "class_accuracy": "Accuracy of each class over its training samples.",
    "group_confusion": "Where the test samples of each shot group end.",
    "groups": "Accuracy of the shot groups.",
    "reliability": "Reliability: accuracy over confidence.",
}
# What the snippets read; a reader puts an image of that name beside them.
IMAGE = "image.png"

TIMM = """\
```python
{register}import timm
import torch
from PIL import Image

model = timm.create_model("{timm_name}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    logits = model(transform(Image.open("{image}").convert("RGB")).unsqueeze(0))
label_names = model.pretrained_cfg["label_names"]
print(label_names[int(logits.argmax())])
```"""

PIPELINE = """\
```python
from transformers import pipeline

classifier = pipeline("{task}", model="{name}"{trust})
print(classifier({example}, top_k=3))
```"""

PACKAGE = """\
```python
from ccsam_hf import load_classifier

classifier = load_classifier("{name}")
print(classifier.predict("{image}", top_k=3)){prior}
```"""

PRIOR = """
# The scores are those of the {source} class frequencies; for other ones:
print(classifier.predict("{image}", top_k=3, prior="{other}"))"""

PLUGIN = """\
`{architecture}` is not one of timm's own architectures. `import ccsam_hf` registers it, after which both libraries \
load the model. Without it timm says `Unknown model ({architecture})`, and transformers raises an `ImportError` that \
asks for another timm; the remedies are `pip install ccsam_hf` and the import, or, in transformers, \
`trust_remote_code=True`, which runs the code in this repository (`{code}`)."""

HEADED = """\
The classifier on top of `{architecture}` is no linear layer ({classifier}), so timm cannot load the model. In \
transformers it loads after `import ccsam_hf` (`pip install ccsam_hf`), or with `trust_remote_code=True`, which runs \
the code in this repository (`{code}`); without either transformers says that it does not know the model type."""


def summary_section(record: RunRecord) -> str:
    """What the model is, and for whom."""
    model, data, stage = record.model, record.data, record.published_stage
    kind = CLASSIFICATION.get(model.task, model.task).replace("classification", "classifier")
    size = "" if model.parameters is None else f" with {model.parameters:,} weights and buffers"
    classes = ""
    if data is not None:
        number = len(data.class_counts) or len(data.label_names)
        classes = f" of {number:,} classes, trained on {data.title}"
    lines = [f"{kind}{classes}: `{model.architecture}`{size}."]
    if stage is not None:
        lines.append(f"Weights after {STAGES[stage.role].lower()}: {stage.method}.")
    given = record.card_metadata
    if given.finetuned_from is not None:
        lines.append(
            f"Fine-tuned from `{given.finetuned_from}`{', a local folder' if given.finetuned_locally else ''}."
        )
    lines += [f"{note}" for note in model.notes]
    lines.append(
        "It is meant for research on long-tailed recognition and as a starting point for similar data; "
        "see the limits below before relying on it for anything else."
    )
    return "\n\n".join([" ".join(lines[:-1]), lines[-1]])


def results_section(record: RunRecord, figures: Sequence[str]) -> str:
    """The stages' figures in per cent with the paper's beside, or that there are none."""
    measured = [stage for stage in record.stages if stage.metrics]
    parts = [] if record.published_metrics else [NEVER_EVALUATED]
    if measured:
        shown = [name for name in HEADLINE if any(name in (stage.metrics or {}) for stage in measured)]
        rows = [[_stage_title(record, stage), *(_cell(stage, name) for name in shown)] for stage in measured]
        parts.append(table(["", *(COLUMNS[name] for name in shown)], rows))
        note = "In per cent, last epoch."
        if record.data is not None:
            note += f" {_sentence(evaluation_note(record.data))}"
        if any(stage.paper for stage in measured):
            note += f" In brackets: the paper's figures{f' ({record.paper})' if record.paper else ''}."
        parts.append(note)
    parts += [f"![{FIGURES[name]}](figures/{name}.png)" for name in FIGURES if name in figures]
    return "\n\n".join(parts)


def data_section(record: RunRecord) -> str:
    """Where the training data come from and how long their tail is, drawn."""
    data, given = record.data, record.card_metadata
    words = {"Data set": given.datasets, "Configuration": given.dataset_args}
    named = [f"{title}: {', '.join(values)}." for title, values in words.items() if values]
    if data is None:
        return " ".join(named) or "This record does not say what the model was trained on."
    lines = [f"{_sentence(data.title)}"]
    lines += [f"Source: {data.source}."] if data.source else []
    lines += [_sentence(f"Licence of the data: {data.licence}")] if data.licence else []
    parts = [" ".join([*lines, *named])]
    if data.settings:
        parts.append(
            table(["Setting", "Value"], [[f"`{name}`", _code(value)] for name, value in data.settings.items()])
        )
    if data.class_counts:
        counts = data.class_counts
        parts.append(
            f"{sum(counts):,} training samples in {len(counts):,} classes, from {max(counts):,} down to "
            f"{min(counts):,} a class{_ratio(counts)}. {_sentence(shot_groups(data))}"
        )
        parts.append(f"![Training samples of each class]({LONG_TAIL_FILE})")
    return "\n\n".join(parts)


def procedure_section(record: RunRecord) -> str:
    """Stages, preprocessing, command and a summary of the log."""
    parts = []
    if record.stages:
        lines = [f"* {STAGES[s.role]}: {s.method}{_duration(s.wall_time_s, ', ')}" for s in record.stages]
        parts.append("\n".join(lines))
    else:
        parts.append("This record does not say how the model was trained.")
    if record.model.preprocessing:
        settings = ", ".join(f"{name} {_code(value)}" for name, value in record.model.preprocessing.items())
        parts.append(f"Preprocessing at test time: {settings}.")
    if record.command:
        parts.append(f"Command:\n\n```bash\n{record.command}\n```")
    for stage in record.stages:
        if stage.log:
            names = list(dict.fromkeys(name for row in stage.log for name in row))
            rows = [[f"{row[name]:.4g}" if name in row else "" for name in names] for row in stage.log]
            parts.append(f"Training log, {STAGES[stage.role].lower()}:\n\n{table(names, rows)}")
    return "\n\n".join(parts)


def hyperparameters_section(record: RunRecord) -> str:
    """The arguments that differ from their defaults; all of them are in run.json."""
    named = [stage for stage in record.stages if stage.arguments]
    if not named:
        return "Not recorded."
    names = list(dict.fromkeys(name for stage in named for name in stage.changed))
    rows = [[f"`{name}`", *(_code(stage.arguments.get(name)) for stage in named)] for name in names]
    head = ["Argument", *(STAGES[stage.role] for stage in named)]
    text = "Arguments that differ from their defaults in some stage; `run.json` has all of them."
    return f"{text}\n\n{table(head, rows)}" if rows else f"All at their defaults. {text}"


def environment_section(record: RunRecord) -> str:
    """Seed, commit, versions, device, time and energy, as far as they are known."""
    rows = [
        ("Seed", record.seed),
        ("Commit", record.commit),
        ("Device", record.device),
        ("Wall time", _duration(record.wall_time_s)),
        ("Energy", None if record.energy_kwh is None else f"{record.energy_kwh:.3g} kWh"),
        ("Date", record.date),
        ("Versions", ", ".join(f"{name} {number}" for name, number in record.versions.items())),
    ]
    known = [f"* {name}: {value}" for name, value in rows if value not in (None, "")]
    return "\n".join(known) or "Not recorded."


def limits_section(record: RunRecord) -> str:
    """What follows from the data for every such model, then what the record adds."""
    data, metrics = record.data, record.published_metrics or {}
    lines = ["It always answers with one of its training classes, also for inputs that show none of them."]
    if data is not None and data.class_counts:
        lines.append(
            f"Its rarest class had {min(data.class_counts):,} training samples; what it says about rare classes is "
            "much less reliable than about frequent ones."
        )
    many, few = metrics.get("many"), metrics.get("few")
    if many is not None and few is not None:
        lines.append(f"Few-shot classes: {100 * few:.1f} % right; many-shot classes: {100 * many:.1f} %.")
    if len(record.stages) and record.seed is not None:
        lines.append("The figures are those of one run with one seed; differences of about a point mean little.")
    return "\n".join(f"* {line}" for line in [*lines, *record.limits])


def citations_section(record: RunRecord) -> str:
    """Method, data, losses and package, BibTeX where there is some."""
    if not record.citations:
        return "None recorded."
    lines = [f"* {_sentence(c.role)[:-1]}: {c.text}" for c in record.citations]
    code = [f"```bibtex\n{c.bibtex}\n```" for c in record.citations if c.bibtex]
    return "\n\n".join(["\n".join(lines), *code])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _stage_title(record: RunRecord, stage: StageRecord) -> str:
    mark = " (this checkpoint)" if stage == record.published_stage else ""
    return f"{STAGES[stage.role]}: {stage.method}{mark}"


def _cell(stage: StageRecord, name: str) -> str:
    value, paper = (stage.metrics or {}).get(name), (stage.paper or {}).get(name)
    ours = "–" if value is None else f"{100 * value:.2f}"
    return ours if paper is None else f"{ours} ({100 * paper:.2f})"


def _ratio(counts: Sequence[int]) -> str:
    return f" (imbalance ratio {max(counts) / min(counts):.4g})" if min(counts) else ""


def _duration(seconds: float | None, before: str = "") -> str:
    if seconds is None:
        return ""
    minutes = seconds / 60
    text = f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    return before + text


def _code(value: Any) -> str:
    return "" if value is None else f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def evaluation_note(data: DataRecord) -> str:
    """Test set, settings of the training split and shot groups, in one line."""
    parts = [data.test or f"{data.title}, {data.split} set"]
    parts += [f"{title} {data.settings[name]}" for name, title in SPLIT.items() if data.settings.get(name) is not None]
    return "; ".join([*parts, shot_groups(data)])


def shot_groups(data: DataRecord) -> str:
    """The thresholds as a sentence would have them, with the classes in each group where counts are known."""
    rule = ShotThresholds(**data.thresholds)
    above, below = ("more than", "fewer than") if rule.boundaries == "strict" else ("at least", "at most")
    sizes = dict.fromkeys(("many", "medium", "few"), "")
    if data.class_counts:
        sizes = {name: f" ({int(mask.sum())} classes)" for name, mask in rule.masks(data.class_counts).items()}
    return (
        f"many-shot: {above} {rule.many} training samples{sizes['many']}; few-shot: {below} {rule.few}{sizes['few']}; "
        f"medium-shot: the rest{sizes['medium']}"
    )


def usage_section(record: RunRecord) -> str:
    """Snippets for timm, transformers and this package, with the remedy for architectures that timm lacks."""
    model, name = record.model, record.repo_id or "."
    parts = [] if record.repo_id else ["The snippets load the model from the current folder, so run them in it."]
    if model.remote_code:
        remedy = PLUGIN if model.classifier is None else HEADED
        names = {"architecture": model.architecture, "classifier": model.classifier, "code": model.remote_code}
        parts.append(remedy.format(**names))
    parts += [f"With {title}:\n\n{code}" for title, code in snippets(model, name, record.repo_id is not None).items()]
    return "\n\n".join(parts)


def snippets(model: ModelRecord, name: str, on_hub: bool) -> dict[str, str]:
    """Title of the library -> its fenced code."""
    is_image = model.task == "image-classification"
    found = {}
    if is_image and model.library == "timm":
        register = "import ccsam_hf  # registers the architecture\n" if model.remote_code else ""
        scheme = "hf-hub" if on_hub else "local-dir"
        found["timm"] = TIMM.format(register=register, timm_name=f"{scheme}:{name}", image=IMAGE)
    trust = ", trust_remote_code=True" if model.remote_code else ""
    example = f'"{IMAGE}"' if is_image else '"A sentence to classify."'
    found["transformers"] = PIPELINE.format(task=model.task, name=name, trust=trust, example=example)
    if is_image:
        found["ccsam_hf"] = PACKAGE.format(name=name, image=IMAGE, prior=_prior_lines(model))
    return found


def _prior_lines(model: ModelRecord) -> str:
    """Another class prior, where the checkpoint records which one its scores presume."""
    if model.training_prior not in ("train", "uniform"):
        return ""
    source, other = ("training", "uniform") if model.training_prior == "train" else ("uniform", "train")
    return PRIOR.format(source=source, other=other, image=IMAGE)
