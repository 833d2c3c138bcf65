import pytest

from ccsam_hf.perturbation.schedule import RadiusSchedule


@pytest.mark.parametrize(
    ("schedule", "epochs", "factors"),
    [
        (RadiusSchedule(), [0, 5.5], [1, 1]),
        (RadiusSchedule(start=2), [0, 1.99, 2, 7], [0, 0, 1, 1]),
        (RadiusSchedule("linear", length=4), [0, 1, 2.5, 4, 9], [0, 0.25, 0.625, 1, 1]),
        (RadiusSchedule("linear", start=2, length=4), [1, 2, 4, 6], [0, 0, 0.5, 1]),
        (RadiusSchedule("step", start=1, length=6, steps=3), [0.9, 1, 2.9, 3, 5, 20], [0, 1 / 3, 1 / 3, 2 / 3, 1, 1]),
    ],
)
def test_factor(schedule: RadiusSchedule, epochs: list[float], factors: list[float]) -> None:
    assert [schedule.factor(epoch) for epoch in epochs] == pytest.approx(factors, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cosine"}, "'cosine' is not known; choose constant, linear, step"),
        ({"start": -1}, "cannot start at epoch -1"),
        ({"kind": "linear"}, "linear and step need one above 0"),
        ({"length": 3}, "linear and step need one above 0"),
        ({"kind": "step", "length": 3}, "needs at least 1"),
        ({"kind": "linear", "length": 3, "steps": 2}, "step, and it alone"),
    ],
)
def test_refuses_what_has_no_meaning(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RadiusSchedule(**arguments)
