"""The cost table compares like with like: the same loss by each way, steps that train, medians of ratios."""

import pytest
import torch

from ccsam_hf.study import step_cost
from ccsam_hf.study.cost_classifier import closed_form_loss, loop_loss
from ccsam_hf.study.cost_setting import LOOP, METHODS, Setting
from ccsam_hf.study.cost_steps import method_steps
from ccsam_hf.study.step_cost import table, timed_in_turns

CPU = torch.device("cpu")
TINY = Setting("cifar_resnet20", 8, 6, 5)


def test_the_loop_and_the_closed_form_are_one_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, counts = torch.tensor([0, 0, 1, 2, 2, 2, 4]), torch.tensor([50, 30, 10, 4, 1])
    leaves = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((7, 6), (5, 6), (5,))]
    values, gradients = [], []
    for loss in (loop_loss, closed_form_loss):
        own = [leaf.clone().requires_grad_() for leaf in leaves]
        value = loss(*own, labels, counts)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, own))
    torch.testing.assert_close(values[1], values[0], rtol=1e-9, atol=1e-9)
    for closed, loop in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(closed, loop, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*METHODS, LOOP])
def test_every_step_trains_by_its_own_method(tmp_path, name, monkeypatch) -> None:
    made = []
    create = step_cost.method_steps.__globals__["create_model"]
    monkeypatch.setitem(
        step_cost.method_steps.__globals__, "create_model", lambda *a, **k: made.append(create(*a, **k)) or made[-1]
    )
    step = method_steps(TINY, [name], CPU, False, str(tmp_path))[name]
    before = {n: p.detach().clone() for n, p in made[0].named_parameters()}
    passes = []
    made[0].register_forward_hook(lambda *a: passes.append(1))
    step()
    assert not [n for n, p in made[0].named_parameters() if torch.equal(p, before[n])]
    # The loop runs the backbone without the wrapper; three groups of classes need a pass each beside the clean one.
    expected = {"plain": 1, "CC-SAM classifier": 1, "CC-SAM cosine classifier": 1, LOOP: 0}
    expected["3 groups, batch statistics"] = 1 + len(set((TINY.batch(CPU)["labels"] * 3 // 5).tolist()))
    assert len(passes) == expected.get(name, 2)


def test_ratios_are_medians_of_the_rounds_and_memory_has_its_own_column() -> None:
    times = {"plain": [1.0, 2.0, 4.0], "other": [2.0, 3.0, 16.0], "unknown": [1.0, 2.0, 4.0]}
    lines = table(times, {"plain": 100.0, "other": 150.0}).splitlines()[2:]
    assert lines == [
        "| plain | 2000.0 | 1.00 | 100 | 1.00 |",
        "| other | 3000.0 | 2.00 | 150 | 1.50 |",
        "| unknown | 2000.0 | 1.00 | - | - |",
    ]


def test_steps_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    steps = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = timed_in_turns(steps, 3, CPU)
    assert calls == list("ab") * 4
    assert [len(values) for values in times.values()] == [3, 3]


def test_command_prints_the_classifier_s_table(capsys) -> None:
    step_cost.main(["--classifier", "8", "6", "5", "--rounds", "1", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "classifier part, batch 8 x 6 features, 5 classes" in printed
    assert [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")][2:] == [
        "plain",
        "CC-SAM classifier",
        LOOP,
    ]


def test_unknown_methods_list_the_choices(capsys) -> None:
    with pytest.raises(SystemExit):
        step_cost.main(["--methods", "magic"])
    assert "CC-SAM all layers" in capsys.readouterr().err
