"""create_model: timm's initialisation, recorded settings, refused input."""

import pytest
import timm
import torch

from ccsam_hf.models import create_model


def same_weights(a, b):
    return all(torch.equal(u, v) for u, v in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("name", "ours", "timms"),
    [
        ("cifar_resnet20", {}, {}),
        ("vit_tiny_patch16_224", {"input_size": 32}, {"img_size": (32, 32)}),
        ("resnet18", {"input_size": (1, 28, 28), "mean": [0.5], "std": [0.5]}, {"in_chans": 1}),
    ],
)
def test_timms_initialisation_is_kept(name, ours, timms):
    torch.manual_seed(1)
    model = create_model(name, 6, **ours)
    torch.manual_seed(1)
    assert same_weights(model.timm_model, timm.create_model(name, num_classes=6, **timms))


def test_settings_not_given_are_the_architectures():
    cfg = create_model("resnet18", 4, crop_pct=1).config.pretrained_cfg
    assert tuple(cfg["input_size"]) == (3, 224, 224)
    assert cfg["mean"] == (0.485, 0.456, 0.406)
    assert cfg["interpolation"] == "bicubic"
    assert cfg["crop_pct"] == 1


def test_all_five_settings_are_recorded():
    given = {
        "input_size": (3, 20, 24),
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "crop_pct": 0.75,
        "interpolation": "nearest",
    }
    cfg = create_model("resnet18", 4, **given).config.pretrained_cfg
    assert {key: cfg[key] for key in given} == given
    assert not {"url", "file", "hf_hub_id", "tag", "license", "test_input_size"} & set(cfg)


def test_label_names_are_written_even_for_a_thousand_classes():
    model = create_model("cifar_resnet20", 1000)
    assert model.config.id2label[7] == "7"
    assert model.config.label2id["999"] == 999


def test_more_classes_than_inaturalist():
    model = create_model("cifar_resnet20", 8143).eval()
    assert model(torch.randn(1, 3, 8, 8)).logits.shape == (1, 8143)
    assert len(model.config.id2label) == 8143


def test_pretrained_weights_keep_the_body_and_replace_the_head(tmp_path, cifar_model):
    cifar_model.save_pretrained(tmp_path)
    name = f"local-dir:{tmp_path}"
    same = create_model(name, 5, pretrained=True)
    assert same_weights(same, cifar_model)
    other = create_model(name, 3, pretrained=True)
    before, after = cifar_model.timm_model.state_dict(), other.timm_model.state_dict()
    assert after["fc.weight"].shape == (3, 64)
    assert all(torch.equal(before[key], after[key]) for key in before if not key.startswith("fc."))
    assert other.config.architecture == "cifar_resnet20"
    assert list(other.config.id2label.values()) == ["0", "1", "2"]
    assert not same_weights(create_model(name, 5), cifar_model)


def test_construction_arguments_of_a_folder_are_repeated(tmp_path):
    create_model("vit_tiny_patch16_224", 4, input_size=32).save_pretrained(tmp_path)
    again = create_model(f"local-dir:{tmp_path}", 4, pretrained=True)
    assert tuple(again.config.model_args["img_size"]) == (32, 32)
    assert tuple(again.config.pretrained_cfg["input_size"]) == (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "num_labels", "kwargs", "message"),
    [
        ("cifar_resnet34", 10, {}, r"Unknown architecture 'cifar_resnet34'; near names: .*cifar_resnet32"),
        ("resnet18.nobody", 10, {}, r"Unknown weights 'resnet18.nobody'; known: .*resnet18.a1_in1k"),
        ("cifar_resnet20", 0, {}, "num_labels must be at least 1, not 0"),
        ("cifar_resnet20", 3, {"label_names": ["a", "b"]}, "label_names has 2 names for num_labels=3"),
        ("cifar_resnet20", 3, {"label_names": ["a", "b", "a"]}, "label_names has 'a' more than once"),
        ("cifar_resnet20", 3, {"input_size": (32, 32)}, r"input_size must be .* not \(32, 32\)"),
        ("cifar_resnet20", 3, {"input_size": 0}, "input_size must be"),
        ("cifar_resnet20", 3, {"input_size": True}, "input_size must be"),
        ("inception_v3", 3, {"input_size": 8}, r"'inception_v3' cannot run images of input_size \(3, 8, 8\)"),
        ("vgg11", 3, {"input_size": 16}, r"'vgg11' cannot run images of input_size \(3, 16, 16\)"),
        ("cifar_resnet20", 3, {"input_size": (1, 8, 8)}, "mean has 3 values for 1 input channels: pass mean="),
        ("cifar_resnet20", 3, {"std": (1, 0, 1)}, "std must be positive"),
        ("cifar_resnet20", 3, {"crop_pct": 1.5}, "crop_pct must be above 0 and at most 1, not 1.5"),
        ("cifar_resnet20", 3, {"interpolation": "cubic"}, "interpolation='cubic' is unknown: one of bicubic"),
        ("cifar_resnet20", 3, {"pretrained": True}, "timm has no weights for 'cifar_resnet20'. Leave pretrained out"),
    ],
)
def test_refused(name, num_labels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, num_labels, **kwargs)
