"""Every option of a perturbation reaches the step, or is refused."""

import pytest
import torch

ONE_EPOCH = {"num_train_epochs": 1, "model": "vit"}


def trained(toy, tmp_path, **options):
    trainer = toy.trainer(tmp_path, **{**ONE_EPOCH, **options})
    trainer.train()
    return toy.weights(trainer)


@pytest.mark.parametrize(
    "options",
    [{"class_reduction": "class"}, {"loss_args": {"weighting": "inverse_frequency"}}],
    ids=lambda o: next(iter(o)),
)
def test_focal_sam_weighs_classes_as_sam_does(toy, tmp_path, options) -> None:
    """Without focus Focal-SAM is SAM, whatever the classes weigh; and they do weigh."""
    sam = trained(toy, tmp_path, perturbation="sam", **options)
    focal = trained(toy, tmp_path, perturbation="focal_sam", focal_gamma=0.0, **options)
    unweighted = trained(toy, tmp_path, perturbation="focal_sam", focal_gamma=0.0)
    for name, value in sam.items():
        torch.testing.assert_close(focal[name], value, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert not torch.allclose(unweighted["classifier.weight"], sam["classifier.weight"], atol=1e-4)


def test_weights_in_half_precision_are_not_moved(toy, tmp_path) -> None:
    """bfloat16 keeps 8 bits of a weight: a perturbation of a thousandth of it would vanish."""
    model = toy.model("vit").bfloat16()
    data = [{**item, "pixel_values": item["pixel_values"].bfloat16()} for item in toy.images()]
    for options in ({"perturbation": "sam"}, {"perturbed_layers": "all"}):
        with pytest.raises(ValueError, match=r"weight vit\.\S+ is bfloat16: .*torch\.float32"):
            toy.trainer(tmp_path, model=model, train_dataset=data, **options).train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "random", "perturbation_sync": True}, "leave perturbation_sync off"),
        ({"layerwise": True, "perturbed_layers": "all"}, "layerwise with relative_radius needs gradient_exponent=0"),
    ],
)
def test_combinations_that_would_not_mean_what_they_say(toy, tmp_path, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        toy.trainer(tmp_path, **options).train()


@pytest.mark.parametrize("count_exponent", [0.0, 0.25])
def test_layerwise_relative_radius_is_the_radius_of_every_layer(toy, tmp_path, count_exponent) -> None:
    """In the first step, where no mean is known, each group moves by r̄ ‖w_t‖ in every tensor t: by r̄ ‖w‖ in all."""
    options = {
        "gradient_exponent": 0.0,
        "count_exponent": count_exponent,
        "relative_radius": 0.02,
        "perturbed_layers": "all",
        "layerwise": True,
        "max_steps": 1,
        "logging_steps": 1,
    }
    trainer = toy.trainer(tmp_path, model="vit", **options)
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["radius_many"] == pytest.approx(0.02, rel=1e-4)
    assert log["loss_perturbed"] > log["loss_clean"]
