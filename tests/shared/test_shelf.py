"""The shared wording, files, tables, figures and divisions."""

import doctest
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ccsam_hf._shared import canvas, choices, division, files, markdown


@pytest.mark.parametrize("module", [choices, markdown, division])
def test_examples_run(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_unknown_choices_are_refused_with_all_and_the_nearest():
    assert choices.checked_choice("rule", "crt", ["crt", "lws"]) == "crt"
    with pytest.raises(ValueError, match=r"^rule='lvs' is not known; choose one of crt, lws\. Did you mean 'lws'\?$"):
        choices.checked_choice("rule", "lvs", ["crt", "lws"])
    with pytest.raises(ValueError, match=r"^rule=3 is not known; choose one of crt, lws\.$"):
        choices.checked_choice("rule", 3, ["crt", "lws"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", None, True, -0.5, 1.0])
def test_numbers_out_of_range_are_refused(value):
    message = r"x must be a finite number of at least 0 and below 1, got "
    with pytest.raises(ValueError, match=message):
        choices.checked_number("x", value, at_least=0, below=1)


def test_numbers_in_range_come_back_as_floats():
    assert choices.checked_number("x", np.float32(0.5), above=0, at_most=0.5) == 0.5
    with pytest.raises(ValueError, match="a finite number above 0 and of at most 1, got 0"):
        choices.checked_number("x", 0, above=0, at_most=1)
    assert choices.checked_whole("k", np.int64(3), at_least=3, at_most=3) == 3
    for bad in (2, 3.0, True, "3"):
        with pytest.raises(ValueError, match="k must be a whole number of at least 3, got"):
            choices.checked_whole("k", bad, at_least=3)


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "new" / "a.json"
    files.write_json(path, {"ü": torch.tensor([1, 2]), "b": (np.float64(0.5),)})
    assert files.read_json(path) == {"ü": [1, 2], "b": [0.5]}
    with pytest.raises(IsADirectoryError), files.replacing(path) as part:  # noqa: PT012
        part.write_text("half", encoding="utf-8")
        raise IsADirectoryError
    assert files.read_json(path) == {"ü": [1, 2], "b": [0.5]}
    assert [found.name for found in path.parent.iterdir()] == ["a.json"]


def test_numbers_that_are_not_finite_follow_the_policy(tmp_path):
    path, content = tmp_path / "a.json", {"rows": [{"loss": math.nan}]}
    with pytest.raises(ValueError, match=r"a\.json would hold a number that is not finite, at rows\.0\.loss"):
        files.write_json(path, content)
    assert not path.exists()
    files.write_json(path, content, non_finite="null")
    assert files.read_json(path) == {"rows": [{"loss": None}]}
    files.write_json(path, content, non_finite="keep")
    assert math.isnan(files.read_json(path)["rows"][0]["loss"])


def test_json_lines_survive_a_torn_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert files.read_jsonl(path) == []
    files.write_jsonl(path, [{"a": 1}, {"a": "x\u2028y"}])
    path.write_text(path.read_text(encoding="utf-8") + '{"a": ', encoding="utf-8")
    files.append_jsonl(path, {"a": 3})
    assert files.read_jsonl(path, skip_torn=True) == [{"a": 1}, {"a": "x\u2028y"}, {"a": 3}]
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 3, is not valid JSON"):
        files.read_jsonl(path)


def test_table_refuses_rows_of_another_length():
    with pytest.raises(ValueError, match="A row has 1 cells for 2 columns"):
        markdown.markdown_table(["a", "b"], [["1"]])
    with pytest.raises(ValueError, match="one of l, r, c for each of the 2 columns"):
        markdown.markdown_table(["a", "b"], [], align="l")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_division_by_zero_and_tiny_norms_stay_finite(dtype):
    x = torch.tensor([[0.0, 0.0], [3e-30, 4e-30], [3e30, 4e30]], dtype=dtype, requires_grad=True)
    norm = division.safe_norm(x)
    expected = torch.tensor([0.0, 5e-30, 5e30], dtype=dtype)
    assert torch.allclose(norm, expected, rtol=1e-6, atol=0)
    division.safe_divide(x, norm[:, None]).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert division.safe_inverse(torch.tensor([0.0, 2.0])).tolist() == [0.0, 0.5]


def test_arms_are_told_apart_and_figures_are_equal_files(tmp_path):
    styles = canvas.arm_styles(f"arm {i}" for i in range(56))
    assert len({(style["color"], style["marker"]) for style in styles.values()}) == 56
    written = []
    for name in ("a.png", "b.png"):
        figure, axes = canvas.canvas(1, 2, sharey=True)
        axes[0, 0].plot([0, 1], **styles["arm 3"])
        axes[0, 1].bar([0], [1], **canvas.bar_style(1))
        written.append(canvas.save_figure(figure, tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert len(list(tmp_path.iterdir())) == 2


def test_only_the_canvas_imports_matplotlib():
    folder = Path(canvas.__file__).parent
    importing = [path.name for path in folder.glob("*.py") if "from matplotlib" in path.read_text(encoding="utf-8")]
    assert importing == ["canvas.py"]
