"""Every method trains, moves exactly the parameters it should, is saved and loads; every value has a source."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageClassification

from ccsam_hf.cli import run_command
from ccsam_hf.data import BENCHMARKS
from ccsam_hf.losses import LOSSES, build_loss
from ccsam_hf.losses.reduction import DEFAULT_BETA
from ccsam_hf.methods import INCONSISTENT, LEFT_OUT, METHODS, PRINTED, Method, find_method, main
from ccsam_hf.methods.printed import GROUP_CLASSES
from ccsam_hf.models import create_model, load_with_head
from ccsam_hf.models.heads import HEADS
from ccsam_hf.training import (
    CCSAMTrainer,
    CCSAMTrainingArguments,
    ClassifierTrainer,
    ClassifierTrainingArguments,
)
from ccsam_hf.training.rules.adversarial import DEFAULT_RELATIVE_SCALE
from ccsam_hf.training.steps.plan import PRESETS

LABELS = [0] * 9 + [1] * 4 + [2] * 2 + [3]
QUICK: dict[str, Any] = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.05,
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "many_shot": 5,
    "few_shot": 3,
}
# The classifier's tensors that stage 2 moves, and the kind of classifier in the end.
SECOND = {
    "ce_mixup_crt": {"weight", "bias"},
    "mislas": {"weight", "bias"},
    "gcl": {"weight"},
    "tau_norm": {"weight"},
    "disalign": {"logit_scale", "logit_bias", "confidence_weight", "confidence_bias"},
    "crt": {"weight", "bias"},
    "crt_dir": {"weight", "bias"},
    "crt_dir_printed": {"weight", "bias"},
    "crt_mag": {"weight", "bias"},
    "crt_dir_mag": {"weight", "bias"},
    "ccsam": {"weight", "bias"},
    "ccsam_released": {"weight", "bias"},
}
KINDS = {"ldam_drw": "cosine", "ldam_drw_sam": "cosine", "gcl": "cosine", "tde": "tde", "reslt": "reslt"}
KINDS |= {"disalign": "disalign"}


def images() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.randn(3, 8, 8, generator=generator) + y, "label": y} for y in LABELS]


def tensors(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def moved(model, before) -> set[str]:
    """Names of the tensors that are new or differ."""
    return {
        name for name, value in tensors(model).items() if name not in before or not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("name", METHODS)
def test_trains_what_it_should_and_loads(name, tmp_path) -> None:
    method = METHODS[name]
    sections = method.sections(epochs=1, milestones=False)
    torch.manual_seed(1)
    model = create_model("cifar_resnet20", 4, input_size=8)
    torch.nn.init.constant_(model.timm_model.fc.bias, 0.1)
    before = tensors(model)
    data = images()
    first = CCSAMTrainer(
        model, CCSAMTrainingArguments(str(tmp_path), **QUICK, **sections["stage1"]), train_dataset=data
    )
    first.train()
    assert first.state.global_step == 2
    parameters = {n for n, _ in model.named_parameters()}
    assert parameters <= moved(model, before)
    if method.stage2 is not None:
        before = tensors(model)
        args = ClassifierTrainingArguments(str(tmp_path), **QUICK, **sections["stage2"])
        ClassifierTrainer(model, args, train_dataset=data).train()
        changed = {n for n in moved(model, before) if "running_" not in n and "num_batches" not in n}
        zeroed = {"timm_model.fc.bias"} if name == "tau_norm" else set()
        assert changed == {f"timm_model.fc.{n}" for n in SECOND[name]} | zeroed
        statistics = {n for n in moved(model, before) if "running_" in n}
        assert bool(statistics) == (name == "mislas")
    model.save_pretrained(tmp_path / "model")
    load = load_with_head if name in KINDS else AutoModelForImageClassification.from_pretrained
    loaded, batch = load(tmp_path / "model").eval(), torch.stack([x["pixel_values"] for x in data])
    with torch.no_grad():
        torch.testing.assert_close(loaded(batch).logits, model.eval()(batch).logits)
    assert getattr(loaded.timm_model.fc, "kind", "linear") == KINDS.get(name, "linear")


def test_stage_2_is_where_the_tables_have_one() -> None:
    assert {name for name, method in METHODS.items() if method.stage2 is not None} == set(SECOND)


def test_deferred_weights_and_decay_fit_the_run() -> None:
    sections = METHODS["ldam_drw"].sections(epochs=200)
    assert sections["stage1"]["loss_args"] == {"drw_epoch": 160}
    assert sections["stage1"]["lr_decay"] == 0.01
    assert "lr_decay" not in METHODS["ldam_drw"].sections(200, milestones=False)["stage1"]
    assert sections["benchmark"] == {"second_stage": False, "control": False}


def test_the_ladder_of_table_2_changes_one_part_at_a_time() -> None:
    """Direction alone, length alone, both, and the second stage."""
    perturbations = [METHODS[n].stage1["perturbation"] for n in ("crt", "crt_dir", "crt_mag", "crt_dir_mag", "ccsam")]
    assert perturbations == ["none", "ccsam_direction", "ccsam_magnitude", "ccsam", "ccsam"]
    rules = [METHODS[n].stage2["rule"] for n in ("crt", "crt_dir", "crt_mag", "crt_dir_mag", "ccsam")]
    assert rules == ["crt"] * 4 + ["adversarial"]


# Defaults that stand elsewhere than in the arguments.
ELSEWHERE = {
    "stage1.loss_args.beta": DEFAULT_BETA,
    "stage2.sampling_beta": 0.9999,
    "stage1.relative_radius": PRESETS["ccsam"]["relative_radius"],
    "stage2.relative_adversarial_scale": DEFAULT_RELATIVE_SCALE,
}
ARGUMENTS: dict[str, type] = {"stage1": CCSAMTrainingArguments, "stage2": ClassifierTrainingArguments}


def value_in_a_run(method: Method, option: str) -> Any:
    """What a run without flags gets: the method's own value or the default."""
    if option in ("deferred", "lr_decay"):
        return getattr(method, option)
    stage, name, *key = option.split(".")
    given = method.sections(200)[stage]
    if key:
        own = given.get(name, {})
        if name == "loss_args":
            defaults = LOSSES[given["loss"]].arguments
        else:
            defaults = {k: v.default for k, v in inspect.signature(HEADS[method.classifier]).parameters.items()}
        value = own.get(key[0], defaults[key[0]])
    else:
        value = given.get(name, next(f.default for f in fields(ARGUMENTS[stage]) if f.name == name))
    return ELSEWHERE[option] if value is None else value


@pytest.mark.parametrize("name", METHODS)
def test_a_run_gets_the_values_whose_sources_are_told(name) -> None:
    method = METHODS[name]
    assert len({setting.option for setting in method.settings}) == len(method.settings)
    for setting in method.settings:
        assert value_in_a_run(method, setting.option) == setting.value, setting.option
        assert setting.source


@pytest.mark.parametrize("name", METHODS)
def test_no_number_is_without_a_source(name) -> None:
    """Every number and switch of a method has its setting; words such as the loss's name are the method itself."""
    method = METHODS[name]
    told = {setting.option for setting in method.settings}
    # Without training there is nothing to decay.
    apart = {"stage2.decay_all_parameters"}
    for stage, options in method.sections(200).items():
        for option, value in options.items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            for key, number in inner:
                path = f"{stage}.{option}" + (f".{key}" if key else "")
                if stage == "benchmark" or isinstance(number, str) or path in apart:
                    continue
                path = {"stage1.loss_args.drw_epoch": "deferred", "stage1.lr_decay": "lr_decay"}.get(path, path)
                assert path in told, path


@pytest.mark.parametrize("name", METHODS)
def test_published_values_are_options_of_the_method(name) -> None:
    """What a benchmark changes is among what the method sets or quotes, its losses build, and its source is told."""
    method = METHODS[name]
    own = {setting.option for setting in method.settings}
    for (benchmark, ratio), entry in method.published.items():
        assert set(entry.changes()) <= own
        assert entry.source
        record = BENCHMARKS[benchmark]
        assert (ratio is None) or record.drawn_on_loading
        sections = method.sections(90, benchmark=benchmark, imbalance_ratio=ratio)
        for stage in ("stage1", "stage2"):
            loss = sections[stage].get("loss", "cross_entropy")
            build_loss(loss, [100, 10, 2], 3, **sections[stage].get("loss_args", {}))


@pytest.mark.parametrize(
    ("name", "benchmark", "ratio", "option", "value"),
    [
        ("mislas", "cifar10-lt", 100, "stage2.loss_args", {"epsilon_head": 0.3, "epsilon_tail": 0.0}),
        ("mislas", "cifar10-lt", 100, "stage2.shift_batch_norm", False),
        ("mislas", "cifar100-lt", 60, "stage2.loss_args", {"epsilon_head": 0.3, "epsilon_tail": 0.0}),
        ("mislas", "cifar100-lt", 200, "stage2.loss_args", {"epsilon_head": 0.4, "epsilon_tail": 0.1}),
        ("mislas", "inat2018", None, "stage1.mixup_alpha", 0.2),
        ("mislas", "digits-lt", 50, "stage2.loss_args", {"epsilon_head": 0.4, "epsilon_tail": 0.1}),
        ("lade", "places-lt", None, "stage1.loss_args", {"alpha": 0.005, "remine_lambda": 0.1}),
        ("reslt", "cifar100-lt", 10, "stage1.classifier_args", {"branch_weight": 0.72}),
        ("tde", "imagenet-lt", None, "stage1.classifier_args", {"alpha": 3.0}),
        ("vs_sam", "cifar10-lt", 100, "stage1.radius", 0.1),
        ("ldam_drw", "imagenet-lt", None, "stage1.loss_args", {"max_margin": 0.3, "drw_epoch": 60}),
        ("gcl", "places-lt", None, "stage2.loss_args", {"noise_scale": 1.0, "margin": 0.1, "scale": 15.0}),
    ],
)
def test_a_benchmark_takes_its_own_values(name, benchmark, ratio, option, value) -> None:
    sections = METHODS[name].sections(90, benchmark=benchmark, imbalance_ratio=ratio)
    stage, key = option.split(".")
    assert sections[stage][key] == value


def test_a_benchmarks_values_leave_the_method_as_it_is() -> None:
    before = METHODS["gcl"].sections(90)
    METHODS["gcl"].sections(90, benchmark="places-lt")["stage2"]["loss_args"]["scale"] = 1.0
    assert METHODS["gcl"].sections(90) == before


def test_unknown_and_left_out_names() -> None:
    with pytest.raises(ValueError, match=r"no method 'cesam'; choose one of ce, ce_mixup"):
        find_method("cesam")
    with pytest.raises(ValueError, match=r"'bgp' is not offered: formula not found\. .*ACM MM 2022"):
        find_method("bgp")
    with pytest.raises(ValueError, match="'range_loss' is not offered: not here yet"):
        find_method("range_loss")


def test_every_printed_row_belongs_to_a_method_or_is_left_out_with_a_reason() -> None:
    """Names of the same printed row (crt_dir and crt_dir_printed) share it; what has no row says so by its absence."""
    shown = {row.title for method in METHODS.values() for row in method.paper}
    assert shown.isdisjoint(LEFT_OUT)
    assert shown | set(LEFT_OUT) == set(PRINTED)
    assert all(method.paper == PRINTED[method.paper[0].title] for method in METHODS.values() if method.paper)
    assert {name for name, method in METHODS.items() if not method.paper} == {"imbsam", "focal_sam", "ccsam_released"}
    assert all(len(reason) > 60 for reason in LEFT_OUT.values())


def test_tables_have_as_many_rows_as_the_paper() -> None:
    numbers = [row.table for rows in PRINTED.values() for row in rows]
    dashes = 2 + 2 + 3 + 4
    assert {table: numbers.count(table) for table in (1, 2, 3, 4)} == {1: 12 * 6 - dashes, 2: 5, 3: 36, 4: 18}


def test_group_figures_agree_with_the_overall_figure_but_where_listed() -> None:
    """Groups weighted by their classes give the overall figure within .1; the listed rows contradict themselves."""
    sizes = {"imagenet-lt": 1000, "places-lt": 365, "inat2018": 8142}
    assert {name: sum(groups) for name, groups in GROUP_CLASSES.items()} == sizes
    checked = contradicting = 0
    for row in (row for rows in PRINTED.values() for row in rows if row.table == 3):
        if None in (row.many, row.medium, row.few, row.overall):
            continue
        groups = zip(GROUP_CLASSES[row.benchmark], (row.many, row.medium, row.few), strict=True)
        mean = sum(size * value for size, value in groups) / sizes[row.benchmark]
        assert row.overall_of_groups() == pytest.approx(mean, abs=1e-9)
        listed = INCONSISTENT.get((row.title, row.benchmark))
        if listed is None:
            assert mean == pytest.approx(row.overall, abs=0.1), row
        else:
            contradicting += 1
            assert abs(mean - row.overall) > 0.1
            assert mean == pytest.approx(listed, abs=0.05)
        checked += 1
    assert (checked, contradicting) == (11 + 8 + 4, len(INCONSISTENT))


def test_figures_that_several_tables_print_agree_but_where_the_guide_says_so() -> None:
    by_table = {(row.table, row.benchmark, row.network): row for row in METHODS["ccsam"].paper if row.table > 1}
    two, three, four = (by_table[table, "places-lt", "resnet152"] for table in (2, 3, 4))
    assert two.overall == three.overall == 40.6
    assert (three.many, three.few) == (four.many, four.few)
    assert (three.medium, four.medium) == (42.1, 41.8)
    guide = (Path(__file__).parents[1] / "recipes" / "guides" / "paper.md").read_text(encoding="utf-8")
    assert all(f"{figure}" in guide for figure in (three.medium, four.medium, *INCONSISTENT.values()))
    assert all(f"{title}" in guide for title, _ in INCONSISTENT)


def test_no_file_says_that_the_tables_are_unreadable() -> None:
    root = Path(__file__).parents[1]
    words = "could not be " + "read"
    folders = (root / name for name in ("ccsam_hf", "recipes", "model_cards"))
    for path in [*root.glob("*.md"), *(path for folder in folders for path in folder.rglob("*"))]:
        if path.suffix in (".md", ".py", ".yaml"):
            assert words not in path.read_text(encoding="utf-8"), path


def test_the_listing_shows_every_figure_with_its_table(capsys) -> None:
    main([])
    text = capsys.readouterr().out
    assert all(f"{name}: {method.title} ({method.reference}" in text for name, method in METHODS.items())
    words = " ".join(text.split())
    assert "cifar10-lt IR 100 83.92" in words
    assert "CVPR 2023, Table 2: places-lt resnet152 38.9" in words
    assert "imagenet-lt resnext50_32x4d many 63.1 medium 53.4 few 41.1 overall 55.4" in words
    assert "imagenet-lt resnet50 many 61.4 medium 49.5 few 37.1 F 0.552" in words
    assert "many 63.0 medium 53.3 few 35.5 overall 52.9 (its groups give 54.6)" in words
    assert all(f"{title}: {reason}" in words for title, reason in LEFT_OUT.items())
    assert "many 48.2 medium 44.7 few 23.6 F 0.579" in words
    assert "chosen: relative_radius 0.002" in text


def test_the_command_lists_one_method(capsys) -> None:
    run_command("methods", ["gcl"])
    printed = capsys.readouterr().out
    assert "Li et al., CVPR 2022" in printed
    assert "effective_number" in printed
    words = " ".join(printed.split())
    assert "published: stage2.loss_args.scale 20 [Keke921/GCLLoss cifar_train_classifier.py: GCLLoss(s=20)]" in words
    assert "on places-lt: mixup_alpha 0.2, loss_args.noise_scale 1, stage2.loss_args.noise_scale 1" in words
    with pytest.raises(SystemExit):
        run_command("methods", ["bgp"])
    assert "formula not found" in capsys.readouterr().err
