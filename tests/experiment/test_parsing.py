"""Flags and YAML files against the options they should give."""

import pytest

from ccsam_hf.cli import COMMANDS, run_command
from ccsam_hf.experiment import BenchmarkOptions, help_text, parse_settings
from ccsam_hf.experiment.cifar import RECIPE as CIFAR
from ccsam_hf.experiment.folder import RECIPE as FOLDER
from ccsam_hf.experiment.imagenet import RECIPE as IMAGENET
from ccsam_hf.experiment.inaturalist import RECIPE as INATURALIST
from ccsam_hf.experiment.places import RECIPE as PLACES


def parsed(tmp_path, *flags: str, recipe=CIFAR):
    return parse_settings(recipe.defaults, ["--output_dir", str(tmp_path), *flags])


def test_defaults_are_the_papers(tmp_path) -> None:
    found = [parsed(tmp_path, recipe=recipe) for recipe in (CIFAR, IMAGENET, PLACES, INATURALIST)]
    assert [settings.stage1.per_device_train_batch_size for settings in found] == [64, 256, 128, 512]
    models = [settings.benchmark.model.partition(".")[0] for settings in found]
    assert models == ["cifar_resnet32", "resnext50_32x4d", "resnet152", "resnet50"]
    for settings in found:
        for args in (settings.stage1, settings.stage2):
            assert (args.optim, args.optim_args, args.max_grad_norm) == ("sgd", "momentum=0.9", 0.0)
    cifar, _, places, _ = found
    assert (cifar.stage1.num_train_epochs, cifar.stage2.num_train_epochs) == (200, 30)
    assert (cifar.stage1.learning_rate, cifar.stage1.weight_decay) == (0.1, 2e-4)
    assert (cifar.stage1.lr_milestones, cifar.stage1.lr_decay) == ([160, 180], 0.1)
    assert cifar.stage1.get_warmup_steps(1000) == 25  # 5 of 200 epochs
    assert places.benchmark.pretrained
    assert places.benchmark.trainable_layers == ["layer4", "fc"]


def test_both_forms_of_flags_and_both_stages(tmp_path) -> None:
    flags = "--dataset=cifar10 --imbalance_ratio 50 --holdout --stage2.rule=crt --stage2.learning_rate 0.05"
    settings = parsed(tmp_path, *flags.split(), "--stage2.num_train_epochs=7", "--seed=3", "--split_seed", "-1")
    assert settings.benchmark == BenchmarkOptions(
        "cifar10-lt", imbalance_ratio=50, holdout=True, split_seed="-1", augmentation="crop_flip"
    )
    assert (settings.stage2.rule, settings.stage2.learning_rate, settings.stage2.num_train_epochs) == ("crt", 0.05, 7)
    assert (settings.stage1.learning_rate, settings.stage1.num_train_epochs) == (0.1, 200)
    assert settings.stage1.seed == settings.stage2.seed == 3
    assert settings.stage2.output_dir == str(tmp_path / "stage2")


def test_lists_booleans_json_and_none(tmp_path) -> None:
    settings = parsed(
        tmp_path,
        *["--lr_milestones", "100", "150", "--lr_decay=0.01", "--stage2.lr_scheduler_type=constant"],
        *["--loss", "vs", "--loss_args", '{"gamma": 0.2}', "--second_stage", "true", "--bf16=false"],
    )
    assert settings.stage1.lr_milestones == [100, 150]
    assert settings.stage1.loss_args == {"gamma": 0.2}
    assert settings.benchmark.second_stage
    settings = parsed(tmp_path, "--lr_milestones=none", "--lr_scheduler_type", "cosine")
    assert settings.stage1.lr_milestones is None
    assert parsed(tmp_path, "--trainable_layers", "all", recipe=PLACES).benchmark.trainable_layers is None


def test_a_file_goes_over_the_defaults_and_flags_over_the_file(tmp_path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "benchmark: {imbalance_ratio: 50}\n"
        "stage1: {learning_rate: 1e-3, num_train_epochs: 5, lr_milestones: [2, 4]}\n"
        "stage2: {rule: crt}\n",
        encoding="utf-8",
    )
    settings = parsed(tmp_path, f"--config={file}", "--num_train_epochs", "6")
    assert settings.benchmark.imbalance_ratio == 50
    assert settings.stage1.learning_rate == 1e-3
    assert settings.stage1.num_train_epochs == 6
    assert settings.stage2.rule == "crt"
    assert settings.stage1.weight_decay == 2e-4


def test_dataset_is_the_hubs_for_ones_own_images(tmp_path) -> None:
    assert parsed(tmp_path, "--dataset", "some/pets", recipe=FOLDER).benchmark.hub_dataset == "some/pets"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning_rte", "1"], "no flag --learning_rte; near names: --learning_rate"),
        (["--stage2.rul=crt"], "Stage 2: There is no flag --stage2.rul; near names: --stage2.rule"),
        (["--learning", "1"], "no flag --learning;"),
        (["7"], "'7' belongs to no flag"),
        (["--seed", "x"], "--seed: invalid int value: 'x'"),
        (["--stage2.seed=x"], "Stage 2: --stage2.seed: invalid int value"),
        (["--lr_milestones", "1", "b"], "--lr_milestones: invalid float value: 'b'"),
        (["--benchmark", "cifar"], "--benchmark cifar is not known: choose cifar10-lt"),
        (["--dataset", "some/pets"], "--dataset some/pets is not known here: choose one of cifar10, cifar100"),
        (["--split_seed", "a"], "--split_seed a is neither a whole number nor none"),
        (["--holdout_fraction", "0.1"], "--holdout_fraction: no effect with --benchmark cifar100-lt"),
        (["--second_stage", "false", "--stage2.rule", "crt"], "--stage2.rule: no effect with --second_stage false"),
        (["--config", "absent.yaml"], "--config absent.yaml cannot be read"),
    ],
)
def test_refused_flags(tmp_path, flags, message) -> None:
    with pytest.raises(ValueError) as caught:
        parsed(tmp_path, *flags)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage3: {seed: 1}", "no section 'stage3'; the sections are benchmark, stage1, stage2"),
        ("stage1: {sead: 1}", "Section 'stage1' has no option 'sead'; near names: seed"),
        ("stage1: 5", "must hold sections benchmark, stage1, stage2"),
        ("a: [", "cannot be read"),
    ],
)
def test_refused_files(tmp_path, text, message) -> None:
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        parsed(tmp_path, "--config", str(tmp_path / "bad.yaml"))
    assert message in str(caught.value)


def test_help_lists_the_flags_of_both_stages_with_the_recipes_defaults() -> None:
    text = help_text(CIFAR.title, CIFAR.defaults)
    for line in (
        "--lr_milestones (160 180)",
        "--stage2.rule (adversarial)",
        "--stage2.lr_milestones (none)",
        "--num_train_epochs (200)",
        "--stage2.num_train_epochs 30",
        "--config (none)",
        "--model (cifar_resnet32)",
    ):
        assert line in text


def test_mistakes_are_one_line_on_stderr_and_exit_code_2(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command("cifar", ["--imbalance_ratoi", "3"])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "ccsam_hf cifar: There is no flag --imbalance_ratoi; near names: --imbalance_ratio.\n"


def test_every_command_is_there() -> None:
    from importlib import import_module

    for place, purpose in COMMANDS.values():
        module, function = place.split(":")
        assert callable(getattr(import_module(module), function)), purpose


@pytest.mark.parametrize(
    ("recipe", "flags", "smoothing", "mixup"),
    [
        (CIFAR, "", (0.4, 0.1), 1.0),
        (CIFAR, "--imbalance_ratio 50", (0.3, 0.0), 1.0),
        (CIFAR, "--dataset cifar10", (0.3, 0.0), 1.0),
        (IMAGENET, "", (0.3, 0.0), 0.2),
        (IMAGENET, "--mixup_alpha 0.5", (0.3, 0.0), 0.5),
        (FOLDER, "--data_dir photos", (0.4, 0.1), 1.0),
    ],
)
def test_a_method_takes_the_values_published_for_the_benchmark(tmp_path, recipe, flags, smoothing, mixup) -> None:
    settings = parsed(tmp_path, "--method", "mislas", *flags.split(), recipe=recipe)
    assert settings.stage2.loss_args == dict(zip(("epsilon_head", "epsilon_tail"), smoothing, strict=True))
    assert settings.stage1.mixup_alpha == mixup


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--loss_args", "[1]"], "--loss_args"),
        (["--loss_args", "{gamma: 2"], "--loss_args {gamma: 2: names and values are needed"),
        (["--stage2.loss_args", "[1]"], "--stage2.loss_args"),
        (["--output_dir", "{folder}/file"], "is a file; name a folder"),
        (["--input_size", "0"], "--input_size 0: at least 1 pixel"),
        (["--config", "{folder}/list.yaml"], "learning_rate is one number, not [1, 2]"),
        (["--config", "{folder}/twice.yaml"], "'seed' is given twice"),
    ],
)
def test_wrong_values_are_one_line_with_the_name_of_the_flag(tmp_path, capsys, words, message) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "list.yaml").write_text("stage1:\n  learning_rate: [1, 2]\n", encoding="utf-8")
    (tmp_path / "twice.yaml").write_text("stage1:\n  seed: 1\n  seed: 2\n", encoding="utf-8")
    filled = [word.replace("{folder}", str(tmp_path)) for word in words]
    with pytest.raises(SystemExit) as stopped:
        run_command("digits", ["--smoke", "--use_cpu", "true", "--output_dir", str(tmp_path / "run"), *filled])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
