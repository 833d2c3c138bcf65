"""Every base loss trains under SAM and under CC-SAM, with an effect; the rest is refused with its reason."""

import pytest

from ccsam_hf.losses import LOSSES, build_loss

ARGS = {"ldam_drw": {"drw_epoch": 0}}
PERTURBATIONS = ("sam", "ccsam")


def options_of(toy, name):
    needs_cosine = build_loss(name, toy.counts, toy.classes, **ARGS.get(name, {})).requires_cosine_head
    classifier = {"classifier": "cosine"} if needs_cosine else {}
    return {
        "loss": name,
        "loss_args": ARGS.get(name),
        "max_steps": 1,
        "logging_steps": 1,
        "model": "resnet",
        **classifier,
    }


def trained(toy, folder, **options):
    trainer = toy.trainer(folder, **options)
    trainer.train()
    return toy.weights(trainer), trainer.state.log_history[0]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains_perturbed(toy, tmp_path, name) -> None:
    for perturbation in PERTURBATIONS:
        found, logs = trained(toy, tmp_path, perturbation=perturbation, **options_of(toy, name))
        assert all(value.isfinite().all() for value in found.values() if value.is_floating_point())
        # The perturbed loss climbs, to first order by ρ ‖g‖.
        assert logs["loss_perturbed"] > logs["loss_clean"]


@pytest.mark.parametrize("name", LOSSES)
def test_mixup_is_taken_or_refused(toy, tmp_path, name) -> None:
    loss = build_loss(name, toy.counts, toy.classes, **ARGS.get(name, {}))
    options = {**options_of(toy, name), "mixup_alpha": 1.0}
    if not loss.supports_mixed_targets:
        with pytest.raises(ValueError, match="no mixed form: set mixup_alpha to 0"):
            trained(toy, tmp_path, **options)
    elif name in ("cross_entropy", "gcl", "label_aware_smoothing"):
        found, _ = trained(toy, tmp_path, **options)
        assert all(value.isfinite().all() for value in found.values() if value.is_floating_point())


REFUSED = {
    "cosine loss, linear head": ({"loss": "ldam"}, "needs cosines, but the classifier is linear"),
    "coupled loss, joint gradients": ({"loss": "lade", "perturbation_sync": True}, "cannot join the regulariser"),
    "cosine head, random direction": (
        {"loss": "gcl", "classifier": "cosine", "direction": "random"}, "not available for a cosine classifier",
    ),
    "tde head, closed form": ({"classifier": "tde"}, "No closed form is known for a 'tde' classifier"),
    "a kind of stage 2": ({"classifier": "lws"}, "choose one of linear, cosine, tde, reslt"),
    "options of none": ({"classifier_args": {"scale": 3}}, "a linear classifier has no options"),
    "unknown option": ({"classifier": "cosine", "classifier_args": {"size": 3}}, "does not take these options"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(toy, tmp_path, case) -> None:
    options, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        toy.trainer(tmp_path, **options).train()


def test_a_classifier_already_there_is_kept_or_refused(toy, tmp_path) -> None:
    first = toy.trainer(tmp_path, classifier="cosine", perturbation="none", loss="ldam", max_steps=1)
    first.train()
    toy.trainer(tmp_path, model=first.model, perturbation="none", loss="ldam", max_steps=1).train()
    with pytest.raises(ValueError, match="the model's is of kind 'cosine' already"):
        toy.trainer(tmp_path, model=first.model, classifier="tde", perturbation="none", max_steps=1).train()
