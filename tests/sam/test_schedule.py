import pytest

from ccsam_hf.sam.schedule import RadiusSchedule


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
        ({"kind": "cosine"}, "radius_schedule='cosine' is not known; choose one of constant, linear, step"),
        ({"start": -1}, "radius_start=-1: give an epoch of at least 0"),
        ({"start": float("nan")}, "radius_start=nan"),
        ({"kind": "linear"}, "radius_ramp=0.0 with radius_schedule='linear': linear and step need epochs above 0"),
        ({"kind": "linear", "length": float("inf")}, "radius_ramp=inf"),
        ({"length": 3}, "radius_ramp=3 with radius_schedule='constant': .* constant none"),
        ({"kind": "step", "length": 3}, "radius_ramp_steps=0 with radius_schedule='step': step needs at least 1"),
        ({"kind": "step", "length": 3, "steps": -2}, "radius_ramp_steps=-2"),
        ({"kind": "linear", "length": 3, "steps": 2}, "radius_ramp_steps=2 with radius_schedule='linear'"),
    ],
)
def test_refuses_what_has_no_meaning(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RadiusSchedule(**arguments)
