"""Which weights are moved: the classifier, the last stage and what follows it, or all."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

Scope = Literal["classifier", "last_stage", "all"]
SCOPES: tuple[str, ...] = get_args(Scope)


def scope_names(model: nn.Module, scope: str, classifier: str | None, last_stage: str | None = None) -> list[str]:
    """Names of the scope's parameters in the model's order.

    "classifier": the parameters of the layer called ``classifier``. "last_stage": the module called
    ``last_stage`` (default: `find_last_stage`) and everything registered after it, the classifier included, so that
    the three scopes contain each other. "all": every parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    if scope == "all":
        return names
    if scope == "classifier":
        assert classifier is not None
        return [name for name in names if name.startswith(f"{classifier}.")]
    if scope != "last_stage":
        raise ValueError(f"Unknown scope {scope!r}; choose among {', '.join(SCOPES)}.")
    stage = find_last_stage(model) if last_stage is None else last_stage
    inside = [position for position, name in enumerate(names) if name.startswith(f"{stage}.")]
    if not inside:
        raise ValueError(f"last_stage {stage!r} holds no parameters; name a module of {type(model).__name__}.")
    return names[inside[0] :]


def find_last_stage(model: nn.Module) -> str:
    """The last of the outermost repeated blocks: `layer4` of a ResNet, the last block of a transformer.

    Going down from the root, through modules with a single part that holds a list of blocks, until there are several
    such parts (take the last) or the list itself is reached (take its last parametrised element). A list is an
    `nn.Sequential` or `nn.ModuleList` of at least two blocks: parametrised elements with parts of their own.
    """
    name, module = "", model
    while True:
        children = [(key, child) for key, child in module.named_children() if _parametrised(child)]
        if _is_list(module):
            return f"{name}{children[-1][0]}"
        parts = [(key, child) for key, child in children if any(_is_list(inner) for inner in child.modules())]
        if not parts:
            raise ValueError(
                f"{type(model).__name__} has no list of blocks whose last element could be its last stage; "
                "name the module with --last_stage."
            )
        if len(parts) > 1:
            return f"{name}{parts[-1][0]}"
        name, module = f"{name}{parts[0][0]}.", parts[0][1]


def _parametrised(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _is_list(module: nn.Module) -> bool:
    blocks = [child for child in module.children() if _parametrised(child) and any(True for _ in child.children())]
    return isinstance(module, nn.Sequential | nn.ModuleList) and len(blocks) > 1
