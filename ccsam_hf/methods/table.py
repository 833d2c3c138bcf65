"""The rows of the paper's tables by name, and the rows that are not offered."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import one_stage, ours, two_stage
from .record import Method

ROWS = (
    one_stage.CE,
    one_stage.CE_MIXUP,
    one_stage.LDAM_DRW_ROW,
    one_stage.LDAM_DRW_SAM,
    one_stage.VS_SAM,
    two_stage.CE_MIXUP_CRT,
    one_stage.DECONFOUND_TDE,
    two_stage.MISLAS_ROW,
    two_stage.GCL_ROW,
    two_stage.TAU_NORM,
    one_stage.BALANCED_SOFTMAX,
    one_stage.LADE_ROW,
    two_stage.DISALIGN,
    one_stage.RESLT_ROW,
    ours.CRT_ROW,
    ours.CRT_DIR,
    ours.CRT_MAG,
    ours.CRT_DIR_MAG,
    ours.CCSAM,
    ours.CCSAM_RELEASED,
)
METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in ROWS})
# Rows of the tables that are not offered, with the reason.
LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "BGP": "not available, formula not found. D. Wang et al., Balanced Gradient Penalty Improves Deep Long-Tailed "
        "Learning, ACM MM 2022, doi 10.1145/3503161.3547763: what could be read of it is the abstract (a "
        "regularisation loss that needs no class priors); no code was found, and a guess would bear its name wrongly."
    }
)


def find_method(name: str) -> Method:
    """The method of that name; ValueError with the choices, or with the reason why a row is not offered."""
    if name in LEFT_OUT or name.upper() in LEFT_OUT:
        raise ValueError(f"method {name!r} is not offered: {LEFT_OUT[name.upper()]}")
    if name not in METHODS:
        raise ValueError(f"There is no method {name!r}; choose one of {', '.join(METHODS)}.")
    return METHODS[name]
