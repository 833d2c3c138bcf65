"""One folder, three libraries, equal logits."""

import json
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments, pipeline

from ccsam_hf.models import add_remote_code, create_model

MODELS = {
    "cifar_resnet20": {},
    "vit_tiny_patch16_224": {"input_size": 32},
    "resnet18": {"input_size": (1, 16, 16), "mean": [0.5], "std": [0.5]},
}


def logits_of(model, x):
    with torch.no_grad():
        out = model.eval()(x)
    return out if isinstance(out, torch.Tensor) else out.logits


def assert_all_libraries_agree(folder, x, model):
    """Weights and buffers bit for bit, and the logits as far as the memory's alignment lets a CPU repeat itself."""
    by_transformers = AutoModelForImageClassification.from_pretrained(folder)
    by_timm = timm.create_model(f"local-dir:{folder}", pretrained=True)
    expected = model.timm_model.state_dict()
    for loaded in (by_transformers.timm_model, by_timm):
        found = loaded.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    for loaded in (by_transformers, by_timm):
        assert torch.allclose(logits_of(loaded, x), logits_of(model, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_saved_folder_loads_everywhere(tmp_path, name):
    model = create_model(name, 5, **MODELS[name])
    x = torch.randn(2, *model.config.pretrained_cfg["input_size"])
    model.save_pretrained(tmp_path)
    assert_all_libraries_agree(tmp_path, x, model)


def test_shared_tensors_are_saved_under_every_name(tmp_path):
    model = create_model("coat_tiny", 3, input_size=64)
    model.save_pretrained(tmp_path)
    assert_all_libraries_agree(tmp_path, torch.randn(1, 3, 64, 64), model)
    inner = model.timm_model
    assert inner.cpe1.proj.weight is inner.serial_blocks1[0].cpe.proj.weight


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_batch_normalisation_keeps_the_eps_of_the_training(tmp_path, eps):
    create_model("fbnetc_100", 3).save_pretrained(tmp_path / "first")
    config_file = tmp_path / "first" / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["model_args"]["bn_eps"] = eps
    config_file.write_text(json.dumps(config), encoding="utf-8")
    model = create_model(f"local-dir:{tmp_path / 'first'}", 3, pretrained=True)
    model.save_pretrained(tmp_path / "second")
    by_timm = timm.create_model(f"local-dir:{tmp_path / 'second'}", pretrained=True)
    by_transformers = AutoModelForImageClassification.from_pretrained(tmp_path / "second")
    for loaded in (model, by_timm, by_transformers):
        assert {m.eps for m in loaded.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {eps}


def test_a_new_network_keeps_its_eps_when_timm_loads_it(tmp_path):
    create_model("fbnetc_100", 3).save_pretrained(tmp_path)
    by_timm = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert {m.eps for m in by_timm.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-5}


def test_pipeline_uses_the_recorded_settings(tmp_path):
    model = create_model("cifar_resnet20", 5, input_size=16, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), crop_pct=1)
    model.save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    pixels = (torch.from_numpy(image).permute(2, 0, 1) / 255 - torch.tensor([[[0.1]], [[0.2]], [[0.3]]])) / (
        torch.tensor([[[1.0]], [[2.0]], [[3.0]]])
    )
    expected = logits_of(model, pixels[None])[0].softmax(-1)
    found = pipeline("image-classification", model=str(tmp_path), device="cpu")(Image.fromarray(image))
    assert [row["label"] for row in found] == [str(i) for i in expected.argsort(descending=True).tolist()]
    assert [row["score"] for row in found] == pytest.approx(expected.sort(descending=True).values.tolist(), rel=1e-5)


def test_names_and_class_counts_survive(tmp_path, cifar_model):
    names = list(cifar_model.config.id2label.values())
    cifar_model.config.class_counts = [50, 20, 9, 4, 1]
    cifar_model.save_pretrained(tmp_path / "first")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "first")
    again.save_pretrained(tmp_path / "second")
    final = AutoModelForImageClassification.from_pretrained(tmp_path / "second")
    assert final.config.class_counts == [50, 20, 9, 4, 1]
    assert [final.config.id2label[i] for i in range(5)] == names

    by_timm = timm.create_model(f"local-dir:{tmp_path / 'second'}", pretrained=True)
    assert list(by_timm.pretrained_cfg["label_names"]) == names
    kept = {"label_names": names, "class_counts": final.config.class_counts}
    timm.models.save_for_hf(by_timm, str(tmp_path / "third"), model_config=kept, safe_serialization=True)
    config_file = tmp_path / "third" / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config.get("model_args", {}).pop("num_classes", None)  # newer timm writes it, transformers cannot bear it
    config_file.write_text(json.dumps(config), encoding="utf-8")
    back = AutoModelForImageClassification.from_pretrained(tmp_path / "third")
    assert back.config.class_counts == [50, 20, 9, 4, 1]
    assert [back.config.id2label[i] for i in range(5)] == names


def test_trainer_checkpoint_is_such_a_folder(tmp_path, cifar_model):
    rows = [{"pixel_values": torch.randn(3, 8, 8), "labels": i % 5} for i in range(8)]
    cifar_model.config.class_counts = [2, 2, 2, 1, 1]
    args = TrainingArguments(
        str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=4, save_steps=1, report_to=[], use_cpu=True
    )
    trainer = Trainer(cifar_model, args, train_dataset=rows)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    x = torch.randn(2, 3, 32, 32)
    for folder in (tmp_path / "final", tmp_path / "run" / "checkpoint-2"):
        assert_all_libraries_agree(folder, x, cifar_model)
        assert AutoModelForImageClassification.from_pretrained(folder).config.class_counts == [2, 2, 2, 1, 1]
    resumed = Trainer(AutoModelForImageClassification.from_pretrained(tmp_path / "final"), args, train_dataset=rows)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert torch.allclose(logits_of(resumed.model, x), logits_of(cifar_model, x))


def test_remote_code_is_for_our_architectures_only(tmp_path):
    create_model("resnet18", 2).save_pretrained(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert add_remote_code(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == before


STRANGER = """
import sys
import torch
from transformers import AutoModelForImageClassification, pipeline
folder = sys.argv[1]
try:
    AutoModelForImageClassification.from_pretrained(folder)
    raise SystemExit("loaded without the code")
except ImportError:
    pass
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
assert not any(name.startswith("ccsam_hf") for name in sys.modules)
with torch.no_grad():
    logits = model(torch.ones(1, 3, 32, 32)).logits
assert torch.allclose(logits, torch.load(sys.argv[2])), logits
pipeline("image-classification", model=folder, trust_remote_code=True, device="cpu")
"""


def test_remote_code_loads_without_this_package(tmp_path, monkeypatch, cifar_model):
    folder = tmp_path / "model"
    cifar_model.save_pretrained(folder)
    copy = add_remote_code(folder)
    assert copy == folder / "cifar_resnet.py"
    torch.save(logits_of(cifar_model, torch.ones(1, 3, 32, 32)), tmp_path / "logits.pt")
    # With the package, the folder needs no trust.
    assert_all_libraries_agree(folder, torch.ones(1, 3, 32, 32), cifar_model)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    call = [sys.executable, "-W", "error::UserWarning:timm", "-c", STRANGER, str(folder), str(tmp_path / "logits.pt")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, cwd=tmp_path, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_loaded_model_with_shared_weights_is_trained_and_saved_again(tmp_path) -> None:
    """Both stages of a CoaT: the second starts from the first's folder."""
    from ccsam_hf.training import ClassifierTrainer, ClassifierTrainingArguments

    create_model("coat_tiny", 2, input_size=64).save_pretrained(tmp_path / "one")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "one")
    images = [{"pixel_values": torch.randn(3, 64, 64), "label": i % 2} for i in range(4)]
    args = ClassifierTrainingArguments(
        str(tmp_path / "two"), max_steps=1, per_device_train_batch_size=4, report_to=[], use_cpu=True, save_steps=1
    )
    ClassifierTrainer(model=model, args=args, train_dataset=images).train()
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "two" / "checkpoint-1")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
