"""Every group of samples through its own perturbed weights, at the price of one more pass for any number of groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .copies_passes import CleanPass, PerturbedPass, Tape
from .group_gradients import GroupGradients, Perturbation
from .interception import Prefix
from .layout import GroupLayout
from .state import RandomState, frozen_buffers, same_randomness

# A fitted class has gradients whose squares underflow in float32; a power of two moves them without rounding.
LOSS_SCALE = 2.0**30


def refuse_joined_statistics(model: nn.Module) -> None:
    """Raise a ValueError for BatchNorm that joins the statistics of several processes."""
    for name, module in model.named_modules():
        if isinstance(module, nn.SyncBatchNorm):
            raise ValueError(
                f"Module {name!r} is a SyncBatchNorm, whose statistics class copies cannot hold fixed; use BatchNorm, "
                "or perturbed_statistics='batch'."
            )


class ClassCopies:
    """Per-group weight perturbations with the clean pass's BatchNorm statistics, for any number of groups.

    For a batch sorted as ``layout`` says (``layout.sorted_batch``), with g_c = ∇ L_c, L_c the mean loss of group c:

        copies = ClassCopies(model, parameters, layout)
        with copies.clean():
            losses = per_sample_losses()              # [B]: an ordinary pass
        gradients = copies.gradients(losses)          # every g_c from one backward pass
        lengths = rule(gradients.total_norms())       # [G] to [G]
        with copies.perturbed(gradient_step(gradients, lengths)):
            perturbed = per_sample_losses()           # [B]: sample i at W + ε_{c(i)}, one forward pass
        (weights * perturbed).sum().backward()        # gradients of all groups summed into W; ε_c constant

    What comes before the first perturbed parameter is the same in both passes and is computed once, with its batch
    statistics and their gradients as in plain training. From the first perturbed parameter on, BatchNorm in the
    perturbed pass, and for g_c, uses the clean batch's mean and variance as constants; so a group's loss depends on
    its own samples alone. Running statistics move once, dropout draws the same masks in both passes, and .grad is
    written by the final ``backward`` only. ``losses`` keeps the ordinary gradient of plain training and may be part
    of the final sum (pass ``retain_graph=True`` to ``gradients`` then).

    Costs two passes' worth of products, and memory for P copies of the parameters with P groups present; a layout
    with ``max_copies`` bounds it by as many copies of one layer, for one and a half times the products.

    A layer enters with its parameters as torch functions receive them, so tied weights and modules called twice are
    right too. Refused with a ValueError: functions that are not known to act on each sample apart, inputs whose first
    dimension is not the batch, autocast, parameters that the pass never used, SyncBatchNorm. Not for use with gradient
    checkpointing, which computes layers again outside of the pass.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        layout: GroupLayout,
        max_copies: int | None = None,
    ) -> None:
        assert parameters, "nothing to perturb: a scope without parameters is refused where it is resolved"
        refuse_joined_statistics(model)
        self.layout = layout
        self._model = model
        self._tape = Tape(layout, dict(parameters), keep=max_copies is None)
        self._prefix: Prefix | None = None

    @contextmanager
    def clean(self) -> Iterator[None]:
        """Run the ordinary forward pass inside, once."""
        assert self._prefix is None, "one ClassCopies serves one batch"
        if not torch.is_grad_enabled():
            raise ValueError(
                "Class copies need the gradient of the clean pass: run it outside torch.no_grad, and without "
                "gradient checkpointing."
            )
        self._prefix = Prefix(RandomState.capture(self._tape.device))
        run = CleanPass(self._tape, self._prefix)
        with torch.compiler.set_stance("force_eager"), run:
            yield
        missing = sorted(set(self._tape.parameters) - run.seen)
        if missing:
            raise ValueError(
                f"The forward pass did not use {len(missing)} perturbed parameters, the first of them {missing[0]!r}; "
                "leave them out of perturbed_layers, or use perturbed_statistics='batch' if they are used by code "
                "that torch functions do not show (an extension, a scripted module)."
            )

    def gradients(self, losses: Tensor, retain_graph: bool = False) -> GroupGradients:
        """∇ L_c of every present group for every perturbed parameter, from the sorted samples' losses [B]."""
        tape = self._tape
        if losses.shape != (self.layout.batch_size,):
            raise ValueError(f"Expected {self.layout.batch_size} per-sample losses, got {tuple(losses.shape)}.")
        coefficients = LOSS_SCALE / self.layout.sizes[self.layout.member].to(losses.dtype)
        tape.gradients.loss_scale = LOSS_SCALE
        tape.capturing = True
        try:
            total = (losses * coefficients).sum()
            inputs = list(tape.parameters.values())
            torch.autograd.grad(total, inputs, retain_graph=retain_graph, allow_unused=True)
        finally:
            tape.capturing = False
        return tape.gradients

    @contextmanager
    def perturbed(self, perturbation: Perturbation) -> Iterator[None]:
        """Run the same forward pass inside: sample i finds W + ε_{c(i)} in the place of W."""
        assert self._prefix is not None, "the clean pass comes first"
        run = PerturbedPass(self._tape, self._prefix, perturbation)
        stance = torch.compiler.set_stance("force_eager")
        with stance, frozen_buffers(self._model), same_randomness(self._prefix.start, self._tape.device), run:
            yield
        self._prefix = None
