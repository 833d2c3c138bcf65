"""How to use a published model: code that runs as it stands, for each library that loads it."""

from __future__ import annotations

from .record import ModelRecord, RunRecord

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
