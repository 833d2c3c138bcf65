"""load_classifier and predict: the pipeline's answers, other priors, refused input."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from ccsam_hf.inference import load_classifier, load_network, open_image, predict_folder
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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr"])
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


def test_arrays_and_tensors_of_several_images(classifier, tmp_path):
    images = [image_of("RGB", seed) for seed in range(3)]
    expected = [classifier.predict(image) for image in images]
    array = np.stack([np.asarray(image) for image in images])
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    unit = tensor / 255
    deep = array.astype(np.uint16) * 257
    for form in (array, tensor, unit, unit.to(torch.float64), array / 255, deep, list(tensor), (t for t in tensor)):
        found = classifier.predict(form, batch_size=2)
        assert [row["label"] for row in found[0]] == [row["label"] for row in expected[0]]
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    for single in (tensor[0], unit[0], array[0]):
        assert_same(classifier.predict(single), expected[0])
    grey = torch.from_numpy(np.asarray(image_of("L")).copy())
    for form in (grey, grey[None]):
        assert_same(classifier.predict(form), classifier.predict(image_of("L")))
    assert classifier.predict(array[:0]) == []


def test_a_folder_stands_for_its_images_in_sorted_order(classifier, tmp_path):
    for name, seed in {"b.png": 1, "a.png": 0, "deep/c.PNG": 2}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image_of("RGB", seed).save(tmp_path / name)
    (tmp_path / "notes").write_text("no image", encoding="utf-8")
    expected = [classifier.predict(image_of("RGB", seed)) for seed in range(3)]
    for found, row in zip(classifier.predict(str(tmp_path)), expected, strict=True):
        assert_same(found, row)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "scan").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Folder .*empty holds no image, but 1 without extension; .*empty holds scan"):
        classifier.predict(tmp_path / "empty")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_files_are_scaled(classifier, tmp_path, suffix):
    grey = np.asarray(image_of("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"deep.{suffix}")
    assert_same(classifier.predict(tmp_path / f"deep.{suffix}"), classifier.predict(image_of("L")))
    unit = Image.fromarray((grey / 255).astype(np.float32))
    assert_same(classifier.predict(unit), classifier.predict(image_of("L")))


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
        ({"images": [np.full((4, 4), 7.0)]}, r"image 0 cannot be taken as an image: it holds floats from 7 to 7, of"),
        ({"images": np.full((4, 4), np.nan)}, r"image 0 .*floats from nan to nan, of which only the range 0\.\.1"),
        ({"images": np.zeros((4, 4), int)}, r"image 0 .*holds int64: convert it to uint8 .* go to classifier\.model"),
        ({"images": torch.randn(3, 8, 8)}, r"image 0 .*floats from -.* already go to classifier\.model"),
        (
            {"images": torch.zeros(8, 8, 3)},
            r"a tensor of shape \[8, 8, 3\]: pass \[H, W\] or \[1, 3 or 4",
        ),
        ({"images": Image.new("I", (4, 4))}, r"image 0 .*32-bit integers of unknown range: convert it to 8 bits"),
        ({"images": Image.new("F", (4, 4), 9)}, r"image 0 .*floats from 9 to 9, of which only the range 0\.\.1"),
        ({"images": [np.zeros((2, 4, 4, 3), np.uint8)]}, r"shape \(2, 4, 4, 3\): pass .* of several sizes as a list"),
        ({"images": np.zeros((3, 8, 8), np.uint8)}, r"shape \(3, 8, 8\): pass \[H, W\]"),
        ({"images": np.zeros((0, 4, 3), np.uint8)}, r"shape \(0, 4, 3\), which holds no pixel: leave it out"),
        ({"images": [Image.new("RGB", (0, 4))]}, "image 0 cannot be read as an image.*it holds no pixel"),
        ({"images": [7]}, "image 0 is of type int: pass Pillow images, paths, bytes, arrays or tensors"),
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


def damaged(folder, tmp_path, change):
    """A copy of the checkpoint with its tensors changed in place."""
    shutil.copytree(folder, tmp_path / "damaged")
    tensors = load_file(tmp_path / "damaged" / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "damaged" / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "damaged"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fc.weight"), r"Tensors 1 missing: timm_model\.fc\.weight\. Copy or download"),
        (lambda t: [t.pop(k) for k in list(t)], r"\d+ missing: .* and \d+ more"),
        (lambda t: t.update(extra=torch.zeros(2)), r"1 not of this network: (timm_model\.)?extra\."),
        (
            lambda t: t.update({"fc.weight": torch.zeros(7, 64)}),
            r"1 of another shape: .*fc\.weight \[7, 64\] instead of \[5",
        ),
        (lambda t: t["fc.bias"].fill_(torch.nan), r"1 not a number: timm_model\.fc\.bias"),
        (lambda t: t["bn1.running_var"][:1].fill_(torch.nan), r"1 not a number: timm_model\.bn1\.running_var"),
    ],
    ids=["missing", "empty", "unexpected", "shape", "all NaN", "one NaN"],
)
def test_wrong_weights_are_refused_by_name(folder, tmp_path, change, message):
    wrong = damaged(folder, tmp_path, change)
    with pytest.raises(ValueError, match=r"weights of .*damaged.* are not those of its network .*" + message):
        load_classifier(wrong)
    with pytest.raises(ValueError, match="are not those of its network"):
        load_network(wrong)


def test_a_missing_batch_counter_changes_nothing(folder, classifier, tmp_path):
    older = damaged(folder, tmp_path, lambda t: t.pop("bn1.num_batches_tracked"))
    assert_same(load_classifier(older, device="cpu").predict(image_of("RGB")), classifier.predict(image_of("RGB")))


@pytest.mark.parametrize(("name", "content"), [("model.safetensors", b""), ("model.safetensors", b"x" * 300)])
def test_damaged_files_are_said(folder, tmp_path, name, content):
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"weights of .*cut.* cannot be read, the file is damaged or was cut off"):
        load_classifier(tmp_path / "cut")


@pytest.mark.parametrize("content", [b"", b"no pickle"])
def test_damaged_pickles_are_said(folder, tmp_path, content):
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").unlink()
    (tmp_path / "cut" / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read, the file is damaged|No model could be loaded"):
        load_classifier(tmp_path / "cut")


@pytest.fixture
def photos(tmp_path):
    for name, seed in {"zoo/b.png": 1, "a b.png": 0, "z.png": 2}.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        image_of("RGB", seed).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "cut.png").write_bytes((tmp_path / "photos" / "z.png").read_bytes()[:200])
    (tmp_path / "photos" / "scan").write_bytes(b"x")
    return tmp_path / "photos"


def test_a_folder_becomes_a_table(folder, classifier, photos, tmp_path):
    report = predict_folder(folder, photos, tmp_path / "out.csv", top_k=2, batch_size=2)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label_1", "score_1", "label_2", "score_2"]
    assert [row["file"] for row in rows] == ["a b.png", "z.png", "zoo/b.png"]
    for row, seed in zip(rows, (0, 2, 1), strict=True):
        first, second = classifier.predict(image_of("RGB", seed), top_k=2)
        assert (row["label_1"], row["label_2"]) == (first["label"], second["label"])
        assert float(row["score_1"]) == pytest.approx(first["score"], abs=1e-5)
    assert (report.images, report.left_out, list(report.unreadable)) == (3, {"": 1}, ["cut.png"])
    assert "3 images ->" in str(report)
    assert "Left out, no images by their extension: 1 without extension" in str(report)
    assert "Could not be read: cut.png:" in str(report)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "photos"]


def test_a_file_name_that_is_no_utf_8_keeps_its_bytes(classifier, tmp_path):
    (tmp_path / "photos").mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / "photos" / name).write_bytes(b"")
    except (OSError, UnicodeError):
        pytest.skip("the file system takes UTF-8 names only")
    image_of("RGB").save(tmp_path / "a.png")
    (tmp_path / "photos" / name).write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "photos" / os.fsdecode(b"cut\xe9.png")).write_bytes(b"")
    report = predict_folder(classifier, tmp_path / "photos", tmp_path / "out.csv")
    assert (report.images, len(report.unreadable)) == (1, 1)
    assert r"Could not be read: cut\xe9.png" in str(report)
    assert b"\ncaf\xe9.png," in (tmp_path / "out.csv").read_bytes().replace(b"\r\n", b"\n")


def test_the_table_follows_the_prior_and_takes_at_most_all_classes(classifier, photos, tmp_path):
    predict_folder(classifier, photos, tmp_path / "out.csv", top_k=99, prior="uniform")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    expected = classifier.predict(image_of("RGB", 0), prior="uniform")
    assert [row[f"label_{k + 1}"] for k in range(5)] == [found["label"] for found in expected]


def test_folders_that_cannot_be_labelled(classifier, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Folder .*empty holds no image"):
        predict_folder(classifier, tmp_path / "empty", tmp_path / "out.csv")
    with pytest.raises(ValueError, match=r"There is no folder .*nowhere"):
        predict_folder(classifier, tmp_path / "nowhere", tmp_path / "out.csv")
    for out in (tmp_path, tmp_path / "nowhere" / "out.csv"):
        with pytest.raises(ValueError, match="cannot be written: name a file in a folder that exists"):
            predict_folder(classifier, photos, out)
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        predict_folder(classifier, photos, tmp_path / "out.csv", top_k=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "photos"]


def test_hub_id_without_a_hub(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="No model could be loaded from 'nobody/nothing', neither as a folder nor"):
        load_classifier("nobody/nothing")
