"""What all long-tailed losses share: logits map x class weights x target side, and the exact gradient by logits."""

from collections.abc import Sequence
from typing import ClassVar, TypedDict

import torch
from torch import Tensor, nn

from .reduction import ClassWeighting, MeanDivisor, reduce_losses
from .target import Target, checked_class_counts


class CommonOptions(TypedDict, total=False):
    """What every loss takes besides its own options."""

    weighting: ClassWeighting | None
    dtype: torch.dtype


def full_precision(logits: Tensor) -> Tensor:
    """The logits in float32 or better: half precision is widened, float32 and float64 are handed back as they are."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


class LongTailedLoss(nn.Module):
    """A loss in three parts that combine freely.

    * the *per-sample value* `loss(logits, target, draw) -> [B]`: unreduced and free of class weights, because the
      perturbation of a class must not depend on how much that class counts in the end;
    * the *class weights* `loss.class_weights(epoch) -> [C] | None`, used by the reduction only;
    * the *target side*: one label, or two mixed ones, `weight * l(labels) + (1 - weight) * l(other)`.

    A subclass writes `per_label`. Whatever it derives from the class counts is a non-persistent buffer: it follows
    `.to(device)` and adds nothing to a checkpoint. `register_loss` gives it a name.

    A loss that also looks at the features, as contrastive losses do, sets `needs_features = True`. Whoever calls it
    passes `features`, the classifier's inputs [B, D], to `forward`, to `regulariser` and to `logit_gradient`, in
    evaluation too; not detached, so that the backbone learns from them. A term with a value for each sample belongs
    in `per_label`; a term that compares the samples of a batch belongs in `regulariser`, with `couples_batch = True`.
    Trainers that do not pass features stop at the first batch of such a loss, by the error of `forward`.

    Args:
        num_classes: C.
        class_counts: the training set's, one per class; None where `needs_class_counts` is False.
        weighting: the class weights and their schedule; None for no weights.
        dtype: of the buffers; float64 for exact checks.

    Attributes:
        needs_class_counts: the formula uses the training set's class counts.
        allows_empty_classes: the formula stands a class without a training sample.
        supports_mixed_targets: False where the formula has no mixed form; such a target then raises.
        requires_cosine_head: the formula expects cosines in [-1, 1], not the outputs of a plain linear layer.
        couples_batch: there is a `regulariser` to be added, which is a function of the whole batch.
        keeps_precision: computes in the logits' own dtype instead of widening half precision.
        mean_divides_by: whether the reference divides a class-weighted batch sum by the sum of the weights or by the
            number of samples. Without class weights both are the same.
        needs_features: `per_label` and `regulariser` take `features`, and `forward` refuses to go without.
        gradient_sums_to_zero: the logits enter through a softmax alone, so that sum_c g_c / a_c = 0 with the `slopes`
            a_c, by which `logit_gradient` keeps the true class's entry exact. False for any other use of the logits.
        draws_noise: `draw` hands out noise that `forward` needs while training.
        slopes: [C] or None: the factors a_c by which the logits map multiplies single classes, so that the gradient
            obeys sum_c g_c / a_c = 0; None where it treats all classes alike.
        logit_scale: factor by which the loss multiplies the head's outputs before its softmax; to be folded into a
            head that is published, or else its probabilities are too flat.

    Example:
        >>> import torch
        >>> from ccsam_hf.losses import CrossEntropy, Target
        >>> class PullTogether(CrossEntropy):
        ...     needs_features, couples_batch = True, True
        ...     def regulariser(self, logits, target, features=None):
        ...         same = target.labels[:, None] == target.labels
        ...         return 0.1 * (torch.cdist(features, features) * same).mean()
        >>> loss, target = PullTogether(num_classes=2), Target(torch.tensor([0, 0, 1]))
        >>> logits, features = torch.zeros(3, 2), torch.tensor([[0.0], [3.0], [5.0]])
        >>> round(loss.reduce(loss(logits, target, features=features), target).item(), 4)
        0.6931
        >>> round(loss.regulariser(logits, target, features=features).item(), 4)
        0.0667
    """

    needs_class_counts: ClassVar[bool] = True
    allows_empty_classes: ClassVar[bool] = False
    supports_mixed_targets: ClassVar[bool] = True
    requires_cosine_head: ClassVar[bool] = False
    couples_batch: ClassVar[bool] = False
    keeps_precision: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    gradient_sums_to_zero: ClassVar[bool] = False
    mean_divides_by: ClassVar[MeanDivisor] = "weights"
    draws_noise: bool = False
    logit_scale: float = 1.0
    class_counts: Tensor | None
    slopes: Tensor | None
    _class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        class_counts: Tensor | Sequence[int] | None = None,
        *,
        weighting: ClassWeighting | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        counts = None
        if class_counts is not None:
            counts = checked_class_counts(class_counts, num_classes, user=type(self).__name__, allow_zero=True)
        self.register_buffer("class_counts", counts, persistent=False)
        self.weighting = weighting
        self.dtype = dtype
        self._keep("slopes", None)
        self._keep("_class_weights", None if weighting is None else weighting.weights())

    def _keep(self, name: str, values: Tensor | None) -> None:
        self.register_buffer(name, None if values is None else values.to(self.dtype), persistent=False)

    def forward(
        self, logits: Tensor, target: Target, draw: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        """The unreduced, unweighted loss.

        Args:
            logits: [B, C], the head's outputs.
            target: B labels, or B pairs of labels.
            draw: [B, C], from `self.draw`; only for losses with noise of their own.
            features: [B, D], the classifier's inputs; losses without `needs_features` ignore them.

        Returns:
            [B], in float32 or better (in the logits' dtype where `keeps_precision`).

        Raises:
            ValueError: a mixed target for a loss without a mixed form, or no features for a loss that needs them.
        """
        self.check_target(target)
        if self.needs_features and features is None:
            raise ValueError(f"{type(self).__name__} needs the classifier's inputs [batch, width]: pass features=")
        assert draw is None or self.draws_noise, f"{type(self).__name__} has no use for a draw"
        wide = logits if self.keeps_precision else full_precision(logits)
        extra = {"features": features} if self.needs_features and features is not None else {}
        return target.mix(lambda labels: self.per_label(wide, labels, draw, **extra))

    def check_target(self, target: Target) -> None:
        """Refuse a mixed target where the formula has no mixed form."""
        if target.is_mixed and not self.supports_mixed_targets:
            raise ValueError(f"{type(self).__name__} has no mixed form: turn mixup off, or choose another loss")

    def checked_counts(self) -> Tensor:
        """The class counts as int64 [C]; a `ValueError` where they are missing, or zero and needed."""
        name = type(self).__name__
        return checked_class_counts(
            self.class_counts, self.num_classes, user=name, allow_zero=self.allows_empty_classes
        )

    def per_label(self, logits: Tensor, labels: Tensor, draw: Tensor | None = None, **features: Tensor) -> Tensor:
        """The loss [B] of one label per sample; `features=` [B, D] comes with `needs_features` only."""
        raise NotImplementedError

    def draw(
        self, shape: torch.Size | tuple[int, ...], generator: torch.Generator, device: torch.device | str
    ) -> Tensor | None:
        """The noise of one step, to be shared by the clean and the perturbed pass; None for a loss without noise."""
        return None

    def regulariser(self, logits: Tensor, target: Target, features: Tensor | None = None) -> Tensor | None:
        """A scalar to add to the reduced loss, where `couples_batch`; it is never perturbed."""
        return None

    def class_weights(self, epoch: float) -> Tensor | None:
        """[C] or None: what a class's contribution is multiplied with at reduction, in the given (0-based) epoch."""
        if self.weighting is None or not self.weighting.active(epoch):
            return None
        return self._class_weights

    def weights(self, target: Target, epoch: float) -> Tensor | None:
        """[B] or None: the class weight of every sample. A mixed sample belongs to its dominant class."""
        weights = self.class_weights(epoch)
        return None if weights is None else weights[target.dominant]

    def reduce(self, losses: Tensor, target: Target, reduction: str = "sample", epoch: float = 0) -> Tensor:
        """One number from the losses [B], with this loss's class weights and divisor; see `reduce_losses`."""
        return reduce_losses(
            losses,
            target,
            reduction,
            num_classes=self.num_classes,
            class_weights=self.class_weights(epoch),
            divide_by=self.mean_divides_by,
            class_counts=self.class_counts,
        )

    def check_epochs(self, num_epochs: float) -> None:
        """Refuse a schedule whose deferred re-weighting would never start in a run of this length."""
        if self.weighting is not None:
            self.weighting.check_epochs(num_epochs)


SMALLEST_RESIDUAL = 1e-30


def logit_gradient(
    loss: LongTailedLoss,
    logits: Tensor,
    target: Target,
    draw: Tensor | None = None,
    features: Tensor | None = None,
) -> Tensor:
    """delta_i = d l_i / d logits_i for the unreduced, unweighted loss; detached, autocast off.

    Losses with `gradient_sums_to_zero` (all of this package) see the logits through a softmax, so that
    sum_c delta_ic / a_c = 0 with the slopes a_c of their logits map (1 for all but VS). The entry of the dominant
    class is recomputed from that: p_y - 1 is 0 in float32 once the margin exceeds about 17, though the others still
    add up to a gradient. Magnitudes below 1e-30 become 0, because products with subnormal numbers run many times
    slower on a CPU.

    Args:
        loss: any loss, the user's own included.
        logits: [B, C], in any floating dtype.
        target: B targets, mixed or not.
        draw: [B, C], the same noise that the loss itself was given.
        features: [B, D], likewise; held constant.

    Returns:
        [B, C], float64 for float64 logits, otherwise float32.
    """
    with torch.autocast(logits.device.type, enabled=False), torch.enable_grad():
        leaf = full_precision(logits.detach()).requires_grad_(True)
        constant = None if features is None else features.detach()
        (gradient,) = torch.autograd.grad(loss(leaf, target, draw, features=constant).sum(), leaf)
    if not loss.gradient_sums_to_zero:
        return _flush(gradient)
    return balanced_residual(gradient, target.dominant, loss.slopes)


def balanced_residual(gradient: Tensor, dominant: Tensor, slopes: Tensor | None = None) -> Tensor:
    """The gradient with its dominant entry set to minus the (slope-weighted) sum of the other entries.

    Args:
        gradient: [B, C].
        dominant: int64 [B].
        slopes: [C], positive; None for all ones.

    Returns:
        [B, C], with magnitudes below 1e-30 flushed to zero.
    """
    entry = dominant[:, None]
    others = _flush(gradient.scatter(1, entry, 0.0))
    true = -others.sum(1) if slopes is None else -(others / slopes).sum(1) * slopes[dominant]
    return _flush(others.scatter(1, entry, true[:, None]))


def _flush(values: Tensor) -> Tensor:
    return values.masked_fill(values.abs() < SMALLEST_RESIDUAL, 0.0)
