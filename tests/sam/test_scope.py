import pytest
import timm
from timm.models import group_parameters
from torch import nn
from toy_nets import Oddities, ResNet

from ccsam_hf.sam.scope import Scope, blocks_of_modules


def vit():
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, img_size=8, patch_size=4, depth=2, embed_dim=12, num_heads=2
    )


def names(text: str, model, **kwargs) -> list[str]:
    return list(Scope.parse(text).select(model, **kwargs))


@pytest.mark.parametrize("text", ["classifier", "last:3", "all", "norm_affine", "no_norm", "names:a.*,b"])
def test_text_is_what_parse_reads(text: str) -> None:
    assert Scope.parse(text).text == text


def test_classifier() -> None:
    assert names("classifier", ResNet(), classifier="fc") == ["fc.weight", "fc.bias"]


def test_all_is_every_trainable_parameter_with_tokens_and_embeddings() -> None:
    model = vit()
    assert names("all", model) == [n for n, _ in model.named_parameters()]
    assert {"cls_token", "pos_embed"} <= set(names("all", model))
    model.cls_token.requires_grad_(False)
    assert "cls_token" not in names("all", model)


def test_norm_affine_knows_batch_norm_that_processes_share() -> None:
    plain, joined = ResNet(), nn.SyncBatchNorm.convert_sync_batchnorm(ResNet())
    assert any(isinstance(m, nn.SyncBatchNorm) for m in joined.modules())
    for text in ("norm_affine", "no_norm", "all"):
        assert names(text, joined) == names(text, plain)


def test_norm_affine_and_no_norm_divide_the_parameters() -> None:
    for model in (ResNet(), Oddities(), vit()):
        norms, others = names("norm_affine", model), names("no_norm", model)
        assert sorted(norms + others) == sorted(n for n, _ in model.named_parameters())
        assert all("bn" in n or "norm" in n or "rms" in n for n in norms)
        assert not any("bn" in n or "norm" in n or "rms" in n for n in others)


def test_patterns() -> None:
    model = ResNet()
    assert names("names:fc.*, blocks.2.conv?.weight", model) == [
        "blocks.2.conv1.weight",
        "blocks.2.conv2.weight",
        "fc.weight",
        "fc.bias",
    ]


def test_last_blocks_of_timm_models() -> None:
    model = vit()
    block_of = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    last = names("last:1", model, classifier="head", block_of=block_of)
    assert {n.split(".")[0] for n in last} == {"blocks", "norm", "head"}
    assert all(n.startswith(("blocks.1.", "norm.", "head.")) for n in last)
    assert len(names("last:3", model, classifier="head", block_of=block_of)) == len(list(model.parameters()))


def test_last_blocks_by_modules() -> None:
    model = ResNet()
    block_of = blocks_of_modules(model, ["blocks.0", "blocks.1", "blocks.2"])
    assert [block_of[n] for n in ("conv.weight", "bn.bias", "blocks.1.bn2.bias", "fc.bias")] == [0, 0, 2, 3]
    last = names("last:2", model, classifier="fc", block_of=block_of)
    assert {n.rpartition(".conv1")[0] for n in last if "conv1" in n} == {"blocks.1", "blocks.2"}
    assert {"fc.weight", "fc.bias"} <= set(last)


@pytest.mark.parametrize("text", ["head", "last:0", "last:x", "last", "all:3", "names:", "names:a,", ""])
def test_unknown_scopes_list_the_choices(text: str) -> None:
    with pytest.raises(ValueError, match=r"not known; choose one of classifier, last:N, all, norm_affine, no_norm"):
        Scope.parse(text)


def test_a_pattern_without_match_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'layer9.\*' of perturbed_layers='names:fc.\*,layer9.\*' matches no train"):
        names("names:fc.*,layer9.*", ResNet())


def test_more_blocks_than_the_model_has_are_refused() -> None:
    model = ResNet()
    block_of = blocks_of_modules(model, ["blocks.0", "blocks.1", "blocks.2"])
    with pytest.raises(ValueError, match="more than the model's 4 blocks"):
        names("last:5", model, classifier="fc", block_of=block_of)


def test_missing_knowledge_is_named() -> None:
    with pytest.raises(ValueError, match="tells its blocks"):
        names("last:1", ResNet(), classifier="fc")
    with pytest.raises(ValueError, match="needs the classifier's name"):
        names("classifier", ResNet())


def test_a_frozen_scope_is_refused() -> None:
    model = ResNet()
    model.fc.requires_grad_(False)
    with pytest.raises(ValueError, match="'classifier' selects no trainable parameter of ResNet"):
        names("classifier", model, classifier="fc")
