"""The members of the family obey their laws when the trainer runs them."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.utils.data import Dataset

from ccsam_hf.models import create_model, replace_classifier

ONE_STEP = {
    "max_steps": 1,
    "per_device_train_batch_size": 32,
    "optim_args": "momentum=0",
    "lr_scheduler_type": "constant",
}
SCOPES = ["classifier", "last:1", "all", "norm_affine", "no_norm", "names:*bias"]


def close(toy, a, b, rtol=1e-4, atol=2e-6, buffers=True) -> None:
    for name, value in toy.weights(a).items():
        if buffers or ("running" not in name and "tracked" not in name):
            torch.testing.assert_close(
                toy.weights(b)[name], value, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )


def trained(toy, tmp_path, **options):
    trainer = toy.trainer(tmp_path, **options)
    trainer.train()
    return trainer


def textbook_sam(model, batch, labels, rho, flat_weight, rate):
    """Foret et al.: climb by rho along the gradient, take the gradient there, step from where one was."""
    model.train()
    parameters = dict(model.named_parameters())
    clean = F.cross_entropy(model(**batch).logits, labels)
    clean_grads = torch.autograd.grad(clean, list(parameters.values()))
    norm = torch.sqrt(sum((g**2).sum() for g in clean_grads))
    moved = {
        n: (p + rho * g / norm).detach().requires_grad_()
        for (n, p), g in zip(parameters.items(), clean_grads, strict=True)
    }
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    there = F.cross_entropy(functional_call(model, {**moved, **buffers}, (), dict(batch)).logits, labels)
    grads = torch.autograd.grad(there, list(moved.values()))
    return {
        n: p.detach() - rate * ((1 - flat_weight) * c + flat_weight * g)
        for (n, p), c, g in zip(parameters.items(), clean_grads, grads, strict=True)
    }


@pytest.mark.parametrize(("kind", "flat_weight"), [("cnn", 1.0), ("vit", 0.3)])
def test_sam_is_the_textbook_step(toy, tmp_path, kind, flat_weight) -> None:
    trainer = toy.trainer(tmp_path, model=kind, perturbation="sam", radius=0.1, flat_weight=flat_weight, **ONE_STEP)
    batch = trainer.data_collator(trainer.train_dataset)
    labels = batch.pop("labels")
    expected = textbook_sam(toy.model(kind), batch, labels, 0.1, flat_weight, trainer.args.learning_rate)
    trainer.train()
    for name, value in expected.items():
        actual = dict(trainer.model.named_parameters())[name].detach()
        torch.testing.assert_close(actual, value, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_tail_weight_multiplies_the_tails_gradient(toy, tmp_path) -> None:
    """One step of plain SGD is linear in the weight v: w(v) = w(1) + (v - 1) (w(2) - w(1))."""
    options = {**ONE_STEP, "model": "vit", "perturbation": "imbsam", "head_threshold": 5, "optim_args": ""}
    one, two, four = (toy.weights(trained(toy, tmp_path, tail_weight=v, **options)) for v in (1.0, 2.0, 4.0))
    assert any(not torch.equal(two[name], one[name]) for name in one)
    for name in one:
        torch.testing.assert_close(four[name], one[name] + 3 * (two[name] - one[name]), rtol=1e-4, atol=2e-6)


def test_imbsam_with_everything_in_the_tail_and_weight_two_is_sam_at_twice_the_rate(toy, tmp_path) -> None:
    options = {**ONE_STEP, "model": "vit", "optim_args": ""}
    sam = toy.weights(trained(toy, tmp_path, perturbation="sam", **{**options, "learning_rate": 0.02}))
    tail = trained(
        toy, tmp_path, perturbation="imbsam", head_threshold=1000, tail_weight=2.0, **{**options, "learning_rate": 0.01}
    )
    for name, value in toy.weights(tail).items():
        torch.testing.assert_close(value, sam[name], rtol=1e-4, atol=2e-6)


def test_imbsam_with_everything_in_the_tail_is_sam(toy, tmp_path) -> None:
    sam = trained(toy, tmp_path, perturbation="sam", num_train_epochs=1)
    tail = trained(toy, tmp_path, perturbation="imbsam", head_threshold=1000, num_train_epochs=1)
    close(toy, sam, tail)


def test_focal_sam_without_focus_is_sam(toy, tmp_path) -> None:
    sam = trained(toy, tmp_path, perturbation="sam", num_train_epochs=1)
    focal = trained(toy, tmp_path, perturbation="focal_sam", focal_gamma=0.0, num_train_epochs=1)
    close(toy, sam, focal)


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_class_copies_of_the_classifier_are_the_closed_form(toy, tmp_path, kind) -> None:
    names = {"cnn": "names:timm_model.fc.*", "vit": "names:classifier.*"}[kind]
    options = {"model": kind, "radius_scale": 0.05, "flat_weight": 0.6, "num_train_epochs": 1}
    close(toy, trained(toy, tmp_path, **options), trained(toy, tmp_path, perturbed_layers=names, **options))


def test_groups_in_turn_of_a_cosine_classifier_are_its_closed_form(toy, tmp_path) -> None:
    options = {"radius_scale": 0.05, "flat_weight": 0.6, "num_train_epochs": 1, "loss": "ldam"}
    runs = []
    for layers in ({}, {"perturbed_layers": "names:classifier.*", "perturbed_statistics": "batch"}):
        model = toy.model("vit")
        replace_classifier(model, "cosine", "classifier")
        runs.append(trained(toy, tmp_path, model=model, **layers, **options))
    close(toy, *runs)


def test_groups_in_turn_are_class_copies_without_batch_statistics(toy, tmp_path) -> None:
    options = {
        "model": "vit",
        "perturbed_layers": "all",
        "radius_scale": 0.05,
        "flat_weight": 0.6,
        "num_train_epochs": 1,
    }
    copies = trained(toy, tmp_path, perturbed_statistics="clean", **options)
    turns = trained(toy, tmp_path, perturbed_statistics="batch", **options)
    close(toy, copies, turns)


@pytest.mark.parametrize("max_copies", [1, 3])
def test_bounded_copies_change_nothing(toy, tmp_path, max_copies) -> None:
    options = {"model": "cnn", "perturbed_layers": "all", "num_train_epochs": 1}
    close(toy, trained(toy, tmp_path, **options), trained(toy, tmp_path, max_copies=max_copies, **options))


@pytest.fixture(scope="module")
def plain(toy, tmp_path_factory):
    return {
        kind: trained(toy, tmp_path_factory.mktemp("plain"), model=kind, perturbation="none", num_train_epochs=1)
        for kind in ("cnn", "vit")
    }


@pytest.mark.parametrize("perturbation", ["sam", "imbsam", "focal_sam", "ccsam", "random_groups", "ccsam_magnitude"])
def test_radius_zero_is_plain_training_bit_for_bit(toy, tmp_path, plain, perturbation) -> None:
    scale = "radius" if perturbation in ("sam", "imbsam", "focal_sam") else "relative_radius"
    zero = trained(toy, tmp_path, perturbation=perturbation, num_train_epochs=1, **{scale: 0.0})
    for name, value in toy.weights(plain["cnn"]).items():
        assert torch.equal(toy.weights(zero)[name], value), name


@pytest.mark.parametrize("scope", SCOPES)
def test_radius_zero_at_every_scope_is_plain_training_bit_for_bit(toy, tmp_path, plain, scope) -> None:
    zero = trained(toy, tmp_path, perturbed_layers=scope, radius_scale=0.0, num_train_epochs=1)
    for name, value in toy.weights(plain["cnn"]).items():
        assert torch.equal(toy.weights(zero)[name], value), name


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_every_scope_trains_and_keeps_plain_training_s_statistics(toy, tmp_path, kind, scope) -> None:
    if kind == "vit" and scope == "last:1":
        pytest.skip("transformers' own models do not tell their blocks")
    trainer = toy.trainer(tmp_path, model=kind, perturbed_layers=scope, relative_radius=0.05, **ONE_STEP)
    reference = toy.trainer(tmp_path, model=kind, perturbation="none", **ONE_STEP)
    start = toy.weights(trainer)
    trainer.train()
    reference.train()
    for name, value in toy.weights(reference).items():
        mine = toy.weights(trainer)[name]
        if "running" in name or "tracked" in name:
            assert torch.equal(mine, value), name
        elif not torch.equal(value, start[name]):
            assert not torch.equal(mine, start[name]), f"{name} did not move"


def test_joined_batch_norm_in_one_process_is_batch_norm_and_class_copies_refuse_it(toy, tmp_path) -> None:
    def joined():
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(toy.model("cnn"))

    for options in ({"relative_radius": 0.05}, {"perturbation": "sam"}):
        runs = [trained(toy, tmp_path, model=model, **ONE_STEP, **options) for model in (toy.model("cnn"), joined())]
        for name, value in toy.weights(runs[0]).items():
            assert torch.equal(toy.weights(runs[1])[name], value), name
    trainer = toy.trainer(tmp_path, model=joined(), perturbed_layers="norm_affine")
    with pytest.raises(ValueError, match=r"'timm_model.bn1' is a SyncBatchNorm.*perturbed_statistics='batch'"):
        trainer.resolve()


@pytest.mark.parametrize("statistics", ["clean", "batch"])
def test_last_block_of_a_timm_vit(toy, tmp_path, statistics) -> None:
    model = timm_vit(toy)
    images = [{**x, "pixel_values": F.interpolate(x["pixel_values"][None], 32)[0]} for x in toy.images()]
    options = {"perturbed_layers": "last:1", "perturbed_statistics": statistics, "relative_radius": 0.05, **ONE_STEP}
    trainer = trained(toy, tmp_path, model=model, train_dataset=images, **options)
    names = set(trainer._engine.directions.parameters)
    assert {"timm_model.head.weight", "timm_model.norm.bias", "timm_model.blocks.11.attn.qkv.weight"} <= names
    assert not any(name.startswith(("timm_model.patch_embed", "timm_model.blocks.0.")) for name in names)
    plain = trained(toy, tmp_path, model=timm_vit(toy), train_dataset=images, perturbation="none", **ONE_STEP)
    for name, value in toy.weights(plain).items():
        assert not torch.equal(toy.weights(trainer)[name], value), f"{name} was trained without perturbation"


def timm_vit(toy):
    torch.manual_seed(1)
    return create_model("vit_tiny_patch16_224", toy.classes, input_size=32)


def test_last_block_leaves_the_others_unperturbed(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, perturbed_layers="last:1", **ONE_STEP)
    trainer.train()
    names = set(trainer._engine.directions.parameters)
    assert {"timm_model.fc.weight", "timm_model.layer3.2.conv2.weight"} <= names
    assert not any(name.startswith(("timm_model.conv1", "timm_model.layer1")) for name in names)


def test_a_schedule_that_has_not_begun_is_plain_training(toy, tmp_path) -> None:
    late = trained(toy, tmp_path, perturbation="sam", radius_start=1.0, num_train_epochs=2, max_steps=4)
    stock = trained(toy, tmp_path, perturbation="none", num_train_epochs=2, max_steps=4)
    for name, value in toy.weights(stock).items():
        assert torch.equal(toy.weights(late)[name], value), name


def test_mean_length_keeps_the_mean_and_unit_length_is_one(toy, tmp_path) -> None:
    options = {"relative_radius": 0.02, "max_steps": 1, "per_device_train_batch_size": 32, "logging_steps": 1}
    rule = trained(toy, tmp_path, **options).state.log_history[0]
    mean = trained(toy, tmp_path, perturbation="ccsam_direction", **options).state.log_history[0]
    noise = trained(toy, tmp_path, perturbation="ccsam_magnitude", **options).state.log_history[0]
    for log in (mean, noise):
        for group in ("many", "medium", "few"):
            assert log[f"radius_{group}"] == pytest.approx(rule[f"radius_{group}"], rel=1e-4)
    assert noise["loss_perturbed"] < rule["loss_perturbed"]  # a random direction climbs less than the gradient


def test_unbiased_norms_train_and_differ(toy, tmp_path) -> None:
    batch = trained(toy, tmp_path, relative_radius=0.05)
    unbiased = trained(toy, tmp_path, relative_radius=0.05, gradient_norm="unbiased")
    assert unbiased.running_unit.norms.weight.gt(0).all()
    assert not torch.equal(toy.weights(batch)["timm_model.fc.weight"], toy.weights(unbiased)["timm_model.fc.weight"])


@pytest.mark.parametrize("options", [{"perturbation": "sam"}, {"perturbed_layers": "all", "relative_radius": 0.02}])
def test_gradient_checkpointing_changes_nothing(toy, tmp_path, options) -> None:
    options = {"model": "vit", "num_train_epochs": 1, **options}
    if "perturbed_layers" in options:
        options["perturbed_statistics"] = "batch"
    close(toy, trained(toy, tmp_path, **options), trained(toy, tmp_path, gradient_checkpointing=True, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"model": "vit", "perturbation": "sam"},
        {"model": "vit", "perturbed_layers": "all", "relative_radius": 0.02},
        {"model": "cnn", "perturbed_layers": "norm_affine", "relative_radius": 0.02},
    ],
    ids=["sam", "copies", "copies of norms"],
)
def test_compiled_equals_eager(toy, tmp_path, options) -> None:
    options = {"num_train_epochs": 1, **options}
    compiled = trained(toy, tmp_path, torch_compile=True, torch_compile_backend="aot_eager", **options)
    close(toy, trained(toy, tmp_path, **options), compiled)


class Unreadable(Dataset):
    """Items whose labels nobody knows beforehand."""

    def __init__(self, items: list[dict]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return self.items[int(index)]


@pytest.mark.parametrize(
    "options",
    [
        {"perturbation": "sam"},
        {"perturbation": "imbsam", "head_threshold": 5, "flat_weight": 0.5},
        {"perturbed_layers": "all"},
    ],
    ids=["sam", "imbsam", "copies"],
)
def test_accumulation_adds_up(toy, tmp_path, options) -> None:
    """Two micro-batches of an accumulated step give the mean of the gradients that each gives alone."""
    options = {"model": "vit", **ONE_STEP, **options, "per_device_train_batch_size": 16}
    accumulated = trained(toy, tmp_path, gradient_accumulation_steps=2, **options)
    order = [int(draw) for draw in accumulated.sampler]
    halves = []
    for half in (order[:16], order[16:]):
        data = Unreadable([toy.images()[i] for i in half])  # whose counts are those of the whole set
        alone = toy.trainer(tmp_path, train_dataset=data, class_counts=toy.counts, **options)
        halves.append((toy.weights(alone), alone))
        alone.train()
    start = halves[0][0]
    for name, value in toy.weights(accumulated).items():
        mean = start[name] + sum(toy.weights(alone)[name] - start[name] for _, alone in halves) / 2
        torch.testing.assert_close(value, mean, rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


REFUSED = [
    ({"perturbation": "sam", "bf16": True}, "perturbed_layers='all' moves weights, which bf16 would round"),
    ({"perturbed_layers": "all", "bf16": True}, "bf16 would round"),
    ({"perturbed_layers": "all", "model": "vit", "gradient_checkpointing": True}, "repeats forward passes"),
    ({"perturbation": "sam", "radius_start": 2.0}, "radius_start=2 is not reached in 2 epochs"),
    ({"partition": "thirds"}, "partition='thirds' is not known"),
    ({"partition": "quantiles", "partition_groups": 9}, "^partition_groups=9 is more than the 4 classes"),
    ({"perturbation": "imbsam", "head_threshold": 1}, "nothing would be perturbed"),
    ({"perturbation": "imbsam", "tail_weight": 0.0}, "tail_weight must be a finite number above 0, got 0"),
    ({"perturbation": "sam", "tail_weight": 2.0}, "tail_weight=2 with partition='batch': no effect"),
    (
        {"perturbation": "imbsam", "head_threshold": 5, "tail_weight": 2.0, "perturbed_statistics": "clean"},
        "tail_weight=2 needs perturbed_statistics='batch'",
    ),
    ({"perturbation": "sam", "radius": -1.0}, "radius must be a finite number of at least 0"),
    ({"perturbed_layers": "names:nothing*"}, "matches no trainable parameter"),
    ({"perturbed_layers": "last:99"}, "more than the model's"),
    ({"perturbed_layers": "last:1", "model": "vit"}, "tells its blocks"),
    ({"perturbed_statistics": "batch"}, "no effect with perturbed_layers='classifier'"),
    ({"perturbation": "sam", "max_copies": 4}, "max_copies=4: no effect"),
    ({"perturbation": "sam", "feature_gradient": "clean"}, "no effect unless perturbed_layers='classifier'"),
    ({"perturbed_layers": "all", "gradient_norm": "unbiased"}, "needs perturbed_layers='classifier'"),
    ({"perturbed_layers": "all", "perturbation_sync": True}, "perturbation_sync needs"),
    ({"adaptive": True}, "adaptive .* needs a constant radius"),
    ({"perturbation": "sam", "direction": "random", "adaptive": True}, "no adaptive or layerwise form"),
    ({"direction": "sideways"}, "direction='sideways' is not known; choose gradient or random"),
    (
        {"radius_schedule": "linear"},
        "^radius_ramp=0.0 with radius_schedule='linear': linear and step need epochs above 0",
    ),
    ({"perturbation": "focal_sam", "flat_weight": 0.5}, "flat_weight=0.5: no effect"),
    ({"perturbation": "focal_sam", "focal_gamma": -1.0}, "focal_gamma must be a finite number of at least 0, got -1.0"),
    ({"perturbation": "focal_sam", "sharpness_weight": -1.0}, "sharpness_weight must be a finite number of at least 0"),
    ({"perturbed_layers": "all", "max_copies": 0}, "max_copies must be at least 1, got 0"),
    ({"perturbation": "ccsam_count", "gradient_norm": "unbiased"}, "gradient_norm='unbiased': no effect on a radius"),
    ({"perturbation": "imbsam", "partition_groups": 2}, "^partition_groups=2 with partition='head_tail'"),
    ({"radius_schedule": "step", "radius_ramp": 1.0}, "^radius_ramp_steps=0 with radius_schedule='step'"),
    ({"head_threshold": 5}, "^head_threshold=5 with partition='class'"),
    ({"relative_radius": 0.01, "radius_scale": 0.1}, "exactly one of radius, radius_scale and relative_radius"),
    ({"perturbed_layers": "sideways"}, "choose one of classifier, last:N, all, norm_affine, no_norm, names:PATTERN"),
    ({"perturbation": "samson"}, "not known; choose one of none, ccsam, .*sam, imbsam, focal_sam"),
    ({"classifier": "cosine", "perturbation_sync": True}, "perturbation_sync=True is not available for a cosine"),
    ({"radius": 0.1}, "gradient_exponent and count_exponent must be 0"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda v: str(v)[:50])
def test_refusals(toy, tmp_path, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        trained(toy, tmp_path, **options)


def test_layerwise_radii_are_logged_as_they_are(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, perturbation="sam", radius=0.05, layerwise=True, logging_steps=1, **ONE_STEP)
    tensors = [p.detach().clone() for p in trainer.model.parameters()]
    norm = torch.sqrt(sum(p.square().sum() for p in tensors))
    trainer.train()
    moved = [min(0.05, 0.1 * p.norm().item()) for p in tensors]
    expected = sum(length**2 for length in moved) ** 0.5 / norm.item()
    assert trainer.state.log_history[0]["radius_many"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("options", [{"adaptive": True}, {"layerwise": True}, {"direction": "random"}], ids=str)
def test_other_directions_stay_within_the_radius(toy, tmp_path, options) -> None:
    trainer = trained(toy, tmp_path, perturbation="sam", radius=0.2, logging_steps=1, **ONE_STEP, **options)
    assert trainer.state.log_history[0]["loss_perturbed"] != trainer.state.log_history[0]["loss_clean"]
