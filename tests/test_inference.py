"""load_classifier and predict: the pipeline's answers, other priors, refused input."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image

from ccsam_hf.inference import load_classifier, open_image
from ccsam_hf.models import create_model

transformers.utils.logging.disable_progress_bar()
NAMES = ["owl", "cat", "emu", "fox", "yak"]
COUNTS = [500, 200, 90, 20, 4]
CIFAR = Path(__file__).parents[1] / "../shared/data/cifar10_lt"


def small_model(**kwargs):
    """Random weights whose scores are far from 0 and 1: the logits are brought to a standard deviation near 1."""
    torch.manual_seed(0)
    settings = {"input_size": 16, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 0.8, **kwargs}
    model = create_model("cifar_resnet20", 5, label_names=NAMES, **settings)
    torch.nn.init.normal_(model.timm_model.fc.weight, std=0.02)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = small_model()
    model.config.class_counts = COUNTS
    model.config.training_prior = "train"
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def classifier(folder):
    return load_classifier(folder, device="cpu")


def image_of(mode, seed=0, size=(21, 17)):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(noise[:, :, 0].astype(np.uint16) * 200)
    if mode in ("RGB", "RGBA", "CMYK"):
        return Image.frombytes(mode, size, noise[:, :, : len(mode)].tobytes())
    return Image.fromarray(noise[:, :, :3]).convert(mode)


def assert_same(found, expected):
    """Labels in order and scores, of one image."""
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], rel=1e-5)


def test_what_a_classifier_knows(classifier):
    assert classifier.label_names == NAMES
    assert classifier.class_counts == COUNTS
    assert classifier.training_prior == "train"
    assert not classifier.model.training
    assert classifier.transform(image_of("RGB")).shape == (3, 16, 16)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_as_in_the_pipeline(folder, classifier, mode):
    image = image_of(mode)
    pipe = transformers.pipeline("image-classification", model=str(folder), device="cpu")
    found = classifier.predict(image)
    assert_same(found, pipe(image))
    assert [NAMES[row["index"]] for row in found] == [row["label"] for row in found]


def test_camera_orientation_as_in_the_pipeline(folder, classifier):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image_of("RGB").save(file, format="png", exif=exif)
    turned = Image.open(file)
    pipe = transformers.pipeline("image-classification", model=str(folder), device="cpu")
    assert_same(classifier.predict(file.getvalue()), pipe(turned))
    assert classifier.predict(file.getvalue()) != classifier.predict(image_of("RGB"))


def test_pipeline_and_classifier_agree_on_real_images(folder, classifier):
    parquet = sorted(CIFAR.glob("**/*.parquet"))
    if not parquet:
        pytest.skip("needs the CIFAR images in ../shared/data")
    import datasets

    rows = datasets.Dataset.from_parquet(str(parquet[0]))
    column = next(name for name, kind in rows.features.items() if isinstance(kind, datasets.Image))
    images = [rows[i][column] for i in range(100)]
    pipe = transformers.pipeline("image-classification", model=str(folder), device="cpu")
    for found, expected in zip(classifier.predict(images), pipe(images), strict=True):
        assert_same(found, expected)


def test_every_form_of_an_image_gives_the_same(classifier, tmp_path):
    image = image_of("RGB")
    image.save(tmp_path / "a.png")
    expected = classifier.predict(image)
    content = (tmp_path / "a.png").read_bytes()
    for form in (str(tmp_path / "a.png"), tmp_path / "a.png", content, bytearray(content), np.asarray(image)):
        assert classifier.predict(form) == expected
    grey = image_of("L")
    assert classifier.predict(np.asarray(grey)) == classifier.predict(np.asarray(grey)[:, :, None])
    assert classifier.predict(np.asarray(grey)) == classifier.predict(grey)


def test_batches_lists_and_top_k(classifier):
    images = [image_of("RGB", seed) for seed in range(5)]
    one_by_one = [classifier.predict(image) for image in images]
    for batch_size in (1, 2, 5, 64):
        for found, expected in zip(classifier.predict(images, batch_size=batch_size), one_by_one, strict=True):
            assert_same(found, expected)
    assert classifier.predict(iter(images), 2, batch_size=1) == [rows[:2] for rows in one_by_one]
    assert len(classifier.predict(images[0], top_k=99)) == 5
    assert sum(row["score"] for row in one_by_one[0]) == pytest.approx(1)
    assert isinstance(classifier.predict(images[:1])[0], list)
    assert classifier.predict([]) == []
    assert classifier.logits([]).shape == (0, 5)


def scores(rows):
    return np.array([row["score"] for row in sorted(rows, key=lambda row: row["index"])])


@pytest.mark.parametrize(
    ("prior", "source", "target_values", "source_values"),
    [
        ("uniform", None, [1] * 5, COUNTS),
        ("train", "uniform", COUNTS, [1] * 5),
        ([3, 0, 1, 1, 5], None, [3, 0, 1, 1, 5], COUNTS),
        (torch.tensor([1, 2, 3, 4, 5]), [5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]),
    ],
)
def test_prior_is_bayes_rule(classifier, prior, source, target_values, source_values):
    image = image_of("RGB")
    plain = scores(classifier.predict(image))
    weighted = [p * t / s for p, t, s in zip(plain, target_values, source_values, strict=True)]
    expected = [w / sum(weighted) for w in weighted]
    found = classifier.predict(image, 5, prior, source_prior=source)
    assert scores(found) == pytest.approx(expected, rel=1e-4)
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)


@pytest.mark.parametrize(("prior", "source"), [("train", None), ("uniform", "uniform"), ([1, 1, 1, 1, 1], "uniform")])
def test_the_source_prior_changes_nothing(classifier, prior, source):
    image = image_of("RGB")
    assert classifier.predict(image, prior=prior, source_prior=source) == classifier.predict(image)


def test_model_of_transformers_itself(tmp_path):
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3)
    model = transformers.ResNetForImageClassification(config)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not say how an image becomes the model's input: save the image proc"):
        load_classifier(tmp_path)
    size = {"height": 24, "width": 24}
    transformers.ViTImageProcessor(size=size, image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
    classifier = load_classifier(tmp_path, device="cpu")
    assert classifier.label_names == ["LABEL_0", "LABEL_1", "LABEL_2"]
    pipe = transformers.pipeline("image-classification", model=str(tmp_path), device="cpu")
    for mode in ("RGB", "RGBA", "L"):
        assert_same(classifier.predict(image_of(mode)), pipe(image_of(mode)))
    with pytest.raises(ValueError, match=r'prior="train" needs the training set.s class counts'):
        classifier.predict(image_of("RGB"), prior="train", source_prior="uniform")
    with pytest.raises(ValueError, match=r'does not record which class prior .* Pass source_prior="train"'):
        classifier.predict(image_of("RGB"), prior="uniform")


def test_folder_saved_by_timm(tmp_path, folder, classifier):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    again = load_classifier(tmp_path, device="cpu")
    assert again.label_names == NAMES
    assert_same(again.predict(image_of("RGB")), classifier.predict(image_of("RGB")))


def test_one_input_channel_gets_grey_values(tmp_path):
    model = small_model(input_size=(1, 16, 16), mean=[0.5], std=[0.5])
    model.save_pretrained(tmp_path)
    classifier = load_classifier(tmp_path, device="cpu")
    image = image_of("RGB")
    assert classifier.transform(image).shape == (1, 16, 16)
    assert classifier.predict(image) == classifier.predict(image.convert("L"))


def test_half_precision_model(tmp_path, classifier):
    small_model().to(torch.bfloat16).save_pretrained(tmp_path)
    half = load_classifier(tmp_path, device="cpu")
    assert half.model.dtype == torch.bfloat16
    assert half.logits(image_of("RGB")).dtype == torch.float32
    assert scores(half.predict(image_of("RGB"))) == pytest.approx(scores(classifier.predict(image_of("RGB"))), abs=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"images": "https://example.org/cat.png"}, "is a URL, .* download it and pass its bytes"),
        ({"images": "data:image/png;base64,AAAA"}, "is a URL"),
        ({"images": ["missing.png"]}, "There is no image file 'missing.png': check the path"),
        ({"images": [__file__]}, "test_inference.py cannot be read as an image: replace it or leave it out"),
        ({"images": [Image.new("RGB", (9, 9)), b"no image"]}, "image 1 cannot be read as an image"),
        ({"images": [np.zeros((4, 4))]}, "image 0 is an array of float64: convert it to uint8"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, r"shape \(2, 4, 4, 3\): pass .* several images as a list"),
        ({"images": np.zeros((3, 8, 8), np.uint8)}, r"shape \(3, 8, 8\): pass \[H, W\]"),
        ({"images": np.zeros((0, 4, 3), np.uint8)}, r"shape \(0, 4, 3\), which holds no pixel: leave it out"),
        ({"images": [Image.new("RGB", (0, 4))]}, "image 0 cannot be read as an image.*it holds no pixel"),
        ({"images": [7]}, "image 0 is of type int: pass Pillow images, paths, bytes or arrays"),
        ({"top_k": 0}, "top_k must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"prior": "test"}, 'prior=\'test\' is unknown: "uniform", "train" or 5 numbers'),
        ({"prior": [1, 2]}, r"prior has shape \(2,\) for 5 classes: give one number each"),
        ({"prior": [1, 1, 1, 1, -1]}, "prior must be finite and not negative, with a positive sum"),
        ({"prior": [0] * 5}, "prior must be finite and not negative, with a positive sum"),
        ({"prior": [1, 1, float("nan"), 1, 1]}, "prior must be finite"),
        ({"prior": "uniform", "source_prior": [1, 1, 0, 1, 1]}, "source_prior is 0 for class 'emu'"),
        ({"source_prior": "uniform"}, "source_prior has no effect without prior"),
    ],
)
def test_refused(classifier, call, message):
    with pytest.raises(ValueError, match=message):
        classifier.predict(**{"images": Image.new("RGB", (9, 9)), **call})


def test_truncated_file_is_named(classifier, tmp_path):
    image_of("RGB").save(tmp_path / "whole.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cut\.png cannot be read as an image"):
        classifier.predict([tmp_path / "whole.png", cut])
    with pytest.raises(ValueError, match="image 1 cannot be read as an image"):
        classifier.predict([tmp_path / "whole.png", Image.open(cut)])


def test_opened_file_is_closed(tmp_path):
    image_of("RGB").save(tmp_path / "a.png")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    kept = [open_image(tmp_path / "a.png") for _ in range(5)]
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    assert len(kept) == 5
    assert after == before


def test_folders_that_cannot_be_loaded(tmp_path, folder):
    with pytest.raises(ValueError, match=r"There is no folder .*nothing"):
        load_classifier(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"has no config.json: name the folder that save_pretrained wrote"):
        load_classifier(tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="No model could be loaded from"):
        load_classifier(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**config, "class_counts": [1, 2]}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config.json has 2 class_counts for 5 classes"):
        load_classifier(tmp_path)
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "problem_type": "multi_label_classification"}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="gives several labels to an image"):
        load_classifier(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "nobodys_net"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"an architecture that timm does not know. Import the package"):
        load_classifier(tmp_path)


def test_hub_id_without_a_hub(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="No model could be loaded from 'nobody/nothing', neither as a folder nor"):
        load_classifier("nobody/nothing")
