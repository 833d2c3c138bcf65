"""Which parameters are perturbed, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

NORMALISATION = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm2d)
CHOICES = "classifier, last:N, all, norm_affine, no_norm, names:PATTERN[,PATTERN...]"

Parameters = dict[str, nn.Parameter]


@dataclass(frozen=True)
class Scope:
    """A choice of parameters; ``parse`` reads it from one word.

    * ``classifier``: the layer that makes the logits, weight and bias;
    * ``last:N``: the last N blocks before the classifier, what lies between them and it, and the classifier;
    * ``all``: every trainable parameter, with the class token, position embeddings and layer scales of a ViT;
    * ``norm_affine``: weight and bias of the normalisation layers (SAM-ON);
    * ``no_norm``: every trainable parameter but these;
    * ``names:layer4.*,fc.*``: names that match one of the patterns (``*``, ``?``, ``[abc]``).

    Normalisation layers are torch's BatchNorm, LayerNorm, GroupNorm, RMSNorm, InstanceNorm2d and classes derived
    from them. Frozen parameters are never selected.
    """

    kind: str
    blocks: int = 0
    patterns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Scope:
        kind, _, rest = text.partition(":")
        if kind == "last" and rest.isdigit() and int(rest) > 0:
            return cls(kind, blocks=int(rest))
        if kind == "names" and all(part.strip() for part in rest.split(",")):
            return cls(kind, patterns=tuple(part.strip() for part in rest.split(",")))
        if kind in SELECTORS and kind not in ("last", "names") and not rest:
            return cls(kind)
        raise ValueError(f"perturbed_layers={text!r} is not known; choose one of {CHOICES}.")

    def select(
        self, model: nn.Module, classifier: str | None = None, block_of: Mapping[str, int] | None = None
    ) -> Parameters:
        """The selected trainable parameters by name, in the model's order.

        ``classifier`` is the name of the module that makes the logits and ``block_of`` the block of each parameter,
        as timm's ``group_parameters(model, model.group_matcher(coarse=True), reverse=True)`` or ``blocks_of_modules``
        tell; only the scopes that name them need them.
        """
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        selected = SELECTORS[self.kind](_Candidates(self, model, trainable, classifier, block_of))
        if not selected:
            raise ValueError(
                f"perturbed_layers={self.text!r} selects no trainable parameter of {type(model).__name__}; choose one "
                f"of {CHOICES}, and see that what it names is not frozen."
            )
        half = [name for name, p in selected.items() if p.dtype in (torch.float16, torch.bfloat16)]
        if half:
            raise ValueError(
                f"perturbed_layers={self.text!r} moves {len(half)} parameters held in half precision, the first of "
                f"them {half[0]!r}: most of a small perturbation would be rounded away. Load the model in float32, or "
                "choose perturbed_layers='classifier', whose closed form moves no weight."
            )
        return selected

    @property
    def text(self) -> str:
        """The word that ``parse`` reads."""
        if self.kind == "last":
            return f"last:{self.blocks}"
        return f"names:{','.join(self.patterns)}" if self.kind == "names" else self.kind


def blocks_of_modules(model: nn.Module, modules: Sequence[str]) -> dict[str, int]:
    """The block of each parameter when the blocks are given as names of modules from input to output, as timm's
    ``feature_info`` does: a parameter outside all of them counts with the block before it, in the model's order."""
    block_of, block = {}, 0
    for name, _ in model.named_parameters():
        inside = [k for k, module in enumerate(modules, 1) if name.startswith(f"{module}.")]
        block = max([block, *inside])
        block_of[name] = block
    return block_of


def normalisation_parameters(model: nn.Module) -> set[str]:
    """Names of the weights and biases of the model's normalisation layers."""
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, NORMALISATION)]
    return {f"{name}.{own}" if name else own for name, m in layers for own, _ in m.named_parameters(recurse=False)}


@dataclass(frozen=True)
class _Candidates:
    """What a scope chooses from."""

    scope: Scope
    model: nn.Module
    trainable: Parameters
    classifier: str | None
    block_of: Mapping[str, int] | None

    def where(self, wanted: Callable[[str], bool]) -> Parameters:
        return {name: p for name, p in self.trainable.items() if wanted(name)}


def _classifier(found: _Candidates) -> Parameters:
    prefix = found.classifier
    if prefix is None:
        text = found.scope.text
        raise ValueError(f"perturbed_layers={text!r} needs the classifier's name; find the classifier first.")
    return found.where(lambda name: name.startswith(f"{prefix}."))


def _last(found: _Candidates) -> Parameters:
    scope, head = found.scope, _classifier(found)
    if found.block_of is None:
        raise ValueError(
            f"perturbed_layers={scope.text!r} needs a model that tells its blocks (timm's group_matcher); name the "
            "parameters instead (names:PATTERN)."
        )
    block_of = {name: block for name, block in found.block_of.items() if name not in head}
    blocks = sorted({block_of[name] for name in found.trainable if name in block_of})
    if scope.blocks > len(blocks):
        raise ValueError(f"perturbed_layers={scope.text!r} asks for more than the model's {len(blocks)} blocks.")
    first = blocks[-scope.blocks]
    return found.where(lambda name: name in head or block_of.get(name, first - 1) >= first)


def _names(found: _Candidates) -> Parameters:
    for pattern in found.scope.patterns:
        if not any(fnmatchcase(name, pattern) for name in found.trainable):
            raise ValueError(
                f"The pattern {pattern!r} of perturbed_layers={found.scope.text!r} matches no trainable parameter; "
                f"names look like {', '.join(repr(name) for name in list(found.trainable)[-3:])}."
            )
    return found.where(lambda name: any(fnmatchcase(name, pattern) for pattern in found.scope.patterns))


def _norm_affine(found: _Candidates) -> Parameters:
    return found.where(normalisation_parameters(found.model).__contains__)


def _no_norm(found: _Candidates) -> Parameters:
    norms = normalisation_parameters(found.model)
    return found.where(lambda name: name not in norms)


SELECTORS: dict[str, Callable[[_Candidates], Parameters]] = {
    "classifier": _classifier,
    "last": _last,
    "all": lambda found: found.trainable,
    "norm_affine": _norm_affine,
    "no_norm": _no_norm,
    "names": _names,
}
