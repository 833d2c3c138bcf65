"""Run by test_push.py in a process of its own: the real clients against the local Hub; prints what happened as JSON.

Arguments: a model folder with its card, an empty folder to work in. Environment: `hub_environment` of an unused port.
"""

import contextlib
import io
import json
import os
import re
import shutil
import sys
import time
import types
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub.utils._http as client
import numpy as np
import timm
import torch
from huggingface_hub import snapshot_download
from local_hub import READ_TOKEN, TOKEN, Fault, LocalHub
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

from ccsam_hf.hub import bare_record, push_command, push_to_hub, write_card
from ccsam_hf.inference import load_classifier
from ccsam_hf.models import create_model

FOLDER, ROOM = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
# The clients have read the address from the environment when they were imported.
hub = LocalHub(urlsplit(os.environ["HF_ENDPOINT"]).port).__enter__()
# The client waits between its repeated attempts; the test does not.
client.time = types.SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
NAME = "ada/animals"
facts = {}


def state(name=NAME, branch="main"):
    return sorted(hub.repos["models", name].files(branch))


def failure(**options):
    """The message of a push that fails, and whether folder and repository stayed as they were."""
    folder = options.pop("folder", FOLDER)
    name = options.pop("name", NAME)
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    commits = len(hub.repos["models", name].commits) if ("models", name) in hub.repos else 0
    try:
        push_to_hub(folder, name, **options)
    except (RuntimeError, ValueError) as error:
        after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        now = len(hub.repos["models", name].commits) if ("models", name) in hub.repos else 0
        return {
            "error": type(error).__name__,
            "message": str(error),
            "kept": after.keys() == files.keys()
            and all(after[p] == files[p] for p in files if p.name not in ("README.md", "run.json")),
            "commits": now - commits,
        }
    finally:
        hub.faults.clear()
    return {"error": None}


# ---- create, push, push the same again -----------------------------------------------------------------------------
hub.faults.append(Fault("PUT", "/lfs/", 500))
facts["server error"] = failure()
hub.faults.append(Fault("PUT", "/lfs/", None))
facts["cut connection"] = failure()
hub.faults.append(Fault("PUT", "/lfs/", 500, times=1))
first = push_to_hub(FOLDER, NAME, commit_message="first")
facts["first"] = {
    "files": state(),
    "private": hub.repos["models", NAME].private,
    "messages": list(hub.repos["models", NAME].messages),
    "id": first.oid,
}
uploads = sum(method == "PUT" for method, _ in hub.requests)
facts["again"] = {
    "id": push_to_hub(FOLDER, NAME).oid,
    "uploads": sum(method == "PUT" for method, _ in hub.requests) - uploads,
}
published = hub.repos["models", NAME].files()
facts["texts"] = {path: text.decode("utf-8", "replace") for path, text in published.items() if path[-3:] != "png"}

# ---- changed: another figure, one gone, weights changed, a file by somebody else ----------------------------------
changed = ROOM / "changed"
shutil.copytree(FOLDER, changed)
hub.repos["models", NAME].commit("main", published | {"NOTES.md": b"mine", "figures/old.png": b"x"}, "by hand")
(changed / "per_class.csv").write_text("label,name\n0,owl\n", encoding="utf-8")
again = push_to_hub(changed, NAME, commit_message="second")
facts["changed"] = {"files": state(), "messages": hub.repos["models", NAME].messages[-2:]}

# ---- what the Hub gives back, in three libraries ------------------------------------------------------------------
image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
local = AutoModelForImageClassification.from_pretrained(FOLDER).eval()
back = load_classifier(NAME, device="cpu")
pixels = back.transform(image)[None]
with torch.no_grad():
    expected = local(pixels).logits
    found = {
        "transformers": AutoModelForImageClassification.from_pretrained(NAME).eval()(pixels).logits,
        "timm": timm.create_model(f"hf-hub:{NAME}", pretrained=True).eval()(pixels),
        "ccsam_hf": back.logits(image),
    }
facts["logits"] = {library: (values - expected).abs().max().item() for library, values in found.items()}
facts["names"] = back.label_names
scores = {row["label"]: row["score"] for row in pipeline("image-classification", model=NAME, device="cpu")(image)}
soft = expected[0].softmax(-1).tolist()
facts["pipeline"] = max(abs(scores[name] - soft[i]) for i, name in enumerate(back.label_names))
facts["download"] = sorted(
    p.relative_to(d).as_posix() for d in [Path(snapshot_download(NAME))] for p in d.rglob("*") if p.is_file()
)

# ---- the card's snippets, as a reader would run them ---------------------------------------------------------------
os.chdir(ROOM)
image.save("image.png")


def run_snippets(card):
    printed = {}
    for title, code in re.findall(r"With (\w+):\n\n```python\n(.*?)```", card, re.DOTALL):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            try:
                exec(compile(code, title, "exec"), {})
            except ImportError as error:
                print(f"ImportError: {error}")
        printed[title] = output.getvalue()
    return printed


facts["snippets"] = run_snippets(facts["texts"]["README.md"])
facts["best label"] = back.predict(image)[0]["label"]
plain = ROOM / "plain"
create_model("resnet18", 3, label_names=["a", "b", "c"], input_size=16).save_pretrained(plain)
write_card(plain, bare_record(plain))
os.chdir(plain)
image.save("image.png")
facts["local snippets"] = run_snippets(Path("README.md").read_text(encoding="utf-8"))
os.chdir(ROOM)

# ---- branches, pull requests, the command line --------------------------------------------------------------------
facts["no branch"] = failure(revision="trial")
hub.repos["models", NAME].branches["trial"] = first.oid
push_to_hub(changed, NAME, revision="trial", commit_message="on a branch")
facts["branch"] = {"trial": state(branch="trial"), "main": hub.repos["models", NAME].messages[-1]}
main = hub.repos["models", NAME].branches["main"]
(changed / "per_class.csv").write_text("label,name\n0,emu\n", encoding="utf-8")
request = push_to_hub(changed, NAME, create_pr=True)
facts["request"] = {"url": request.pr_url, "moved": hub.repos["models", NAME].branches["main"] != main}
with contextlib.redirect_stdout(io.StringIO()) as output:
    push_command([str(changed), "ada/by-command", "--public"])
facts["command"] = {"printed": output.getvalue(), "private": hub.repos["models", "ada/by-command"].private}
push_to_hub(changed, "shortname")
facts["short name"] = ("models", "ada/shortname") in hub.repos

# ---- refusals and failures ---------------------------------------------------------------------------------------
facts["bad token"] = failure(token="hf_unknown")
facts["read token"] = failure(token=READ_TOKEN)
facts["someone else's"] = failure(name="bob/animals")
facts["bad name"] = failure(name="ada/animals/too/long")
hub.faults.append(Fault("POST", "/commit/", None))
facts["cut commit"] = failure(folder=changed)
hub.faults.append(Fault("POST", "/commit/", 409, times=1))
facts["conflict"] = failure(folder=changed)
hub.add("ada/dataset", {"data.csv": b""}, kind="datasets")
facts["a dataset"] = failure(name="ada/dataset")
hub.add("ada/other", {"model.gguf": b"", "README.md": b""})
facts["no model"] = failure(name="ada/other")
hub.add("ada/bert", {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b""})
facts["another model"] = failure(name="ada/bert")
leaky = ROOM / "leaky"
shutil.copytree(FOLDER, leaky)
(leaky / "notes.md").write_text(f"fine\ntrained in {ROOM}\nwith {os.environ['HF_TOKEN']}\n", encoding="utf-8")
facts["leak"] = failure(folder=leaky, name="ada/leaky")
facts["leak"]["created"] = ("models", "ada/leaky") in hub.repos
bare = ROOM / "bare"
create_model("cifar_resnet20", 3).save_pretrained(bare)
push_to_hub(bare, "ada/bare")
facts["bare"] = hub.repos["models", "ada/bare"].files()["README.md"].decode()
os.environ.pop("HF_TOKEN")
facts["no token"] = failure()
os.environ["HF_TOKEN"] = TOKEN
hub.__exit__()
facts["no network"] = failure()
print("FACTS" + json.dumps(facts))
