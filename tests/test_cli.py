"""The front door of the command line: what it lists, where it sends words, what it answers to slips."""

import csv
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from ccsam_hf import cli
from ccsam_hf.data import BENCHMARKS
from ccsam_hf.losses import LOSSES


def refused(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_command_on_one_screen(capsys, words) -> None:
    cli.main(words)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert all(any(line.startswith(f"  {command} ") for line in lines) for command in cli.COMMANDS)


def test_version(capsys) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out == f"ccsam-hf {version('ccsam_hf')}\n"


def test_a_misspelt_command_is_answered_with_the_nearest(capsys) -> None:
    assert refused(capsys, "evalute") == "ccsam_hf: unknown command 'evalute'; did you mean 'evaluate'?"


@pytest.mark.parametrize("kind", cli.LISTS)
def test_every_list_prints_names(capsys, kind) -> None:
    cli.main(["list", kind])
    names = capsys.readouterr().out.split()
    assert len(names) > 2
    assert names == list({"losses": LOSSES, "benchmarks": BENCHMARKS}.get(kind, names))


def test_a_misspelt_list_is_answered_with_the_nearest(capsys) -> None:
    assert "did you mean 'losses'?" in refused(capsys, "list", "loses")


@pytest.fixture
def sent(monkeypatch) -> list[tuple[str, list[str]]]:
    calls: list[tuple[str, list[str]]] = []
    own = cli._named
    programs = {place: name for name, (place, _) in cli.COMMANDS.items() if ".experiment." in place}

    def named(path):
        return (lambda words: calls.append((programs[path], words))) if path in programs else own(path)

    monkeypatch.setattr(cli, "_named", named)
    return calls


def test_train_takes_a_benchmark_or_a_folder(sent, tmp_path) -> None:
    cli.main(["train", "cifar10-lt", "--seed", "1"])
    cli.main(["train", "inat2018"])
    cli.main(["train", str(tmp_path), "--smoke"])
    assert sent == [
        ("cifar", ["--benchmark", "cifar10-lt", "--seed", "1"]),
        ("inaturalist", []),
        ("folder", ["--data_dir", str(tmp_path), "--smoke"]),
    ]


def test_train_knows_every_benchmark_with_a_recipe() -> None:
    assert set(cli.BENCHMARKS) <= set(BENCHMARKS)


def test_train_refuses_unknown_data_and_data_named_twice(capsys, sent, tmp_path) -> None:
    assert "did you mean 'cifar100-lt'?" in refused(capsys, "train", "cifar100lt")
    assert "leave the flag out" in refused(capsys, "train", "cifar10-lt", "--benchmark=cifar100-lt")
    assert "leave the flag out" in refused(capsys, "train", str(tmp_path), "--data-dir", "other")
    assert sent == []


def test_predict_writes_a_row_for_each_image(tmp_path, capsys) -> None:
    from ccsam_hf import create_model

    model = create_model("cifar_resnet8", num_labels=3, label_names=["a", "b", "c"], input_size=8)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "images").mkdir()
    for i in range(2):
        Image.fromarray(np.full((8, 8, 3), 90 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    out = tmp_path / "rows.csv"
    cli.main(["predict", str(tmp_path / "model"), str(tmp_path / "images"), "--out", str(out), "--top_k", "2"])
    assert capsys.readouterr().out.startswith("2 images -> ")
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["0.png", "1.png"]
    assert {row["label_1"] for row in rows} <= {"a", "b", "c"}


def test_predict_refuses_wrong_words_in_one_line(capsys) -> None:
    assert "did you mean '--top_k'?" in refused(capsys, "predict", "model", "images", "--topk", "3")
    assert "--top_k 0: at least 1" in refused(capsys, "predict", "model", "images", "--top_k", "0")
