"""The settings under which every loss is tested."""

import pytest

CASES = [
    ("cross_entropy", {}),
    ("class_balanced", {}),
    ("focal", {"gamma": 0.0}),
    ("focal", {"gamma": 0.5}),
    ("focal", {"gamma": 2.0}),
    ("ldam", {"max_margin": 0.5, "scale": 30.0}),
    ("ldam", {"max_margin": 0.2, "scale": 4.0}),
    ("balanced_softmax", {}),
    ("logit_adjustment", {"tau": 0.7}),
    ("logit_adjustment", {"tau": 2.0}),
    ("logit_margin", {"mean_margin": 0.8, "tau": 0.0}),
    ("logit_margin", {"mean_margin": 2.0, "tau": 1.0}),
    ("vs", {"gamma": 0.3, "tau": 1.0}),
    ("vs", {"gamma": 0.05, "tau": 0.75}),
    ("lade", {}),
    ("gcl", {"noise_scale": 0.5, "margin": 0.0, "scale": 30.0}),
    ("gcl", {"noise_scale": 1.0, "margin": 0.1, "scale": 5.0}),
    ("label_smoothing", {"epsilon": 0.1, "convention": "uniform"}),
    ("label_smoothing", {"epsilon": 0.3, "convention": "others"}),
    *(
        (
            "label_aware_smoothing",
            {"epsilon_head": 0.4, "epsilon_tail": 0.1, "shape": shape, "convention": convention} | more,
        )
        for shape, more in (("concave", {}), ("linear", {}), ("convex", {}), ("exponential", {"power": 0.5}))
        for convention in ("others", "uniform")
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def case(request):
    """Name and arguments of one loss."""
    return request.param
