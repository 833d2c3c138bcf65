"""A user's own data set and augmentation, in files of the user's: none of the package's is touched."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import ccsam_hf
from ccsam_hf.data import (
    AUGMENTATIONS,
    BENCHMARKS,
    Augmentation,
    BenchmarkRecord,
    ClassSampler,
    Draw,
    ImageConfig,
    Splits,
    TensorImages,
    TransformedImages,
    class_report,
    image_views,
    load_benchmark,
    register_augmentation,
    register_benchmark,
    splits_of,
    uniform,
)
from ccsam_hf.data.augment import TimmTransform

NAMES = ["jay", "kea", "owl"]


def birds(counts, side: int = 12, names=NAMES) -> datasets.Dataset:
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)
    rows = {"photo": [Image.fromarray(p) for p in pixels], "species": labels}
    features = datasets.Features({"photo": datasets.Image(), "species": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict(rows, features=features)


def load_birds(request) -> Splits:
    return splits_of(birds([20, 20, 20]), birds([2, 2, 2]), origin="my birds")


@pytest.fixture
def registered():
    """Registers and takes away again, so that other tests see the package's own names."""
    before = dict(BENCHMARKS), dict(AUGMENTATIONS)
    yield register_benchmark
    for registry, parts in zip((BENCHMARKS, AUGMENTATIONS), before, strict=True):
        registry._parts = parts


RECORD = BenchmarkRecord("birds-lt", load=load_birds, imbalance_ratio=5, input_size=(3, 12, 12))


def test_a_registered_benchmark_is_loaded_like_the_packages_own(registered):
    registered("birds-lt")(RECORD)
    data = load_benchmark("birds-lt", holdout=True)
    assert data.class_counts.tolist() == [18, 8, 3]
    assert np.bincount(data.validation["label"]).tolist() == [2, 2, 2]
    assert data.label_names == tuple(NAMES)
    assert data.settings["origin"] == "my birds"
    assert class_report(data).startswith("birds-lt: 29 training, 6 validation, 6 test images, 3 classes")
    assert load_benchmark("birds-lt", imbalance_ratio=2).class_counts.tolist() == [20, 14, 10]
    views = image_views(data, augmentation="crop_flip")
    assert views.train[Draw(3, 0, 3)]["pixel_values"].shape == (3, 12, 12)
    batch = next(iter(torch.utils.data.DataLoader(views.train, 4, sampler=ClassSampler(views.train.labels, "class"))))
    assert batch["pixel_values"].shape == (4, 3, 12, 12)


def test_objects_stand_in_place_of_names():
    by_record = load_benchmark(RECORD)
    assert by_record.class_counts.tolist() == [20, 8, 4]
    assert load_benchmark(by_record) is by_record
    with pytest.raises(ValueError, match="`holdout` has no effect on birds-lt, which is loaded already"):
        load_benchmark(by_record, holdout=True)
    assert "birds-lt" not in BENCHMARKS


def test_a_natural_long_tail_of_ones_own_is_compared_with_its_record(tmp_path):
    def load(request) -> Splits:
        assert request.data_dir == tmp_path
        return splits_of(birds([9, 4, 1]), birds([2, 2, 2]), birds([1, 1, 1]))

    record = BenchmarkRecord("birds", load=load, reads=("data_dir",), train_size=14, num_classes=3)
    data = load_benchmark(record, data_dir=tmp_path)
    assert (data.class_counts.tolist(), len(data.validation)) == ([9, 4, 1], 3)
    assert load_benchmark(record, data_dir=tmp_path, holdout=True).class_counts.tolist() == [8, 4, 1]
    with pytest.raises(ValueError, match="`hub_dataset` has no effect on birds: leave it out, unless its record names"):
        load_benchmark(record, hub_dataset="a/b")
    other = BenchmarkRecord("birds", load=load, reads=("data_dir",), train_size=15)
    with pytest.raises(ValueError, match="This is not birds: 14 training images instead of 15"):
        load_benchmark(other, data_dir=tmp_path)
    assert load_benchmark(other, data_dir=tmp_path, subset=True).num_classes == 3


def test_wrong_records_are_refused():
    with pytest.raises(ValueError, match="birds needs `load`, a function from a `Request` to `Splits`"):
        BenchmarkRecord("birds")
    with pytest.raises(ValueError, match="reads of birds names 'holdout': choose among data_dir, list_dir"):
        BenchmarkRecord("birds", load=load_birds, reads=("holdout",))
    with pytest.raises(ValueError, match=r"`load` of birds gave a tuple, not `Splits`: return splits_of"):
        load_benchmark(BenchmarkRecord("birds", load=lambda request: (birds([2, 1]), birds([1, 1]))))
    with pytest.raises(ValueError, match=r"The classes of test \(data sets at hand\) are not jay, kea, owl: n"):
        splits_of(birds([2, 1, 1]), birds([1, 1, 1], names=NAMES[::-1]))
    numbered = birds([2, 1, 1]).cast_column("species", datasets.Value("int64"))
    with pytest.raises(ValueError, match="has 0 class columns among photo, species: name one with `label_column`"):
        splits_of(numbered, numbered)


def test_labels_without_names_get_numbers_or_the_names_given():
    plain = birds([2, 1, 1]).cast_column("species", datasets.Value("int64"))
    assert splits_of(plain, plain, label_column="species").label_names == ("0", "1", "2")
    assert splits_of(plain, plain, label_column="species", label_names=NAMES).label_names == tuple(NAMES)


def add_fog(images, keys, seed):
    fog = torch.from_numpy((60 * uniform(seed, *keys, stream=77)).astype(np.uint8))
    return torch.maximum(images, fog[:, :, None, None])


FOG = Augmentation(batch=add_fog, transform=TimmTransform({"color_jitter": None}))


def test_an_own_augmentation_by_name_or_as_an_object(registered):
    data = load_benchmark(RECORD)
    register_augmentation("fog")(FOG)
    by_name, by_object = (image_views(data, augmentation=a, seed=1).train for a in ("fog", FOG))
    for part in (by_name, by_object):
        foggy = part.__getitems__([Draw(0, 2, 5), Draw(1, 2, 6)])
        again = part[Draw(1, 2, 6)]
        assert torch.equal(foggy[1]["pixel_values"], again["pixel_values"])
        assert not torch.equal(foggy[1]["pixel_values"], part[1]["pixel_values"])
    assert torch.equal(by_name[Draw(0, 2, 5)]["pixel_values"], by_object[Draw(0, 2, 5)]["pixel_values"])
    one_by_one = TransformedImages(data.train, ImageConfig((3, 12, 12)), augmentation="fog")
    assert one_by_one[Draw(0, 2, 5)]["pixel_values"].shape == (3, 12, 12)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: TensorImages(
            torch.zeros(1, 3, 4, 4, dtype=torch.uint8), [0], mean=[0] * 3, std=[1] * 3, augmentation=a
        ),
        lambda a: TransformedImages(load_benchmark(RECORD).train, augmentation=a),
    ],
)
def test_a_wrong_augmentation_is_answered_with_the_nearest(make):
    with pytest.raises(ValueError, match=r"Unknown augmentation 'crop_flp': did you mean 'crop_flip'\? Choose one of"):
        make("crop_flp")
    with pytest.raises(ValueError, match="is a dict: give a name or an `Augmentation`"):
        make({"flip": True})
    with pytest.raises(ValueError, match=r"is not for images .*: choose one of none, crop"):
        make(Augmentation())


def test_the_doors_are_public():
    assert ccsam_hf.register_benchmark is register_benchmark
    assert ccsam_hf.register_augmentation is register_augmentation
