import pickle
import re

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch.utils.data import DataLoader

import ccsam_hf
from ccsam_hf.data.augment import augmentation_names
from ccsam_hf.data.benchmarks import load_benchmark
from ccsam_hf.data.counts import class_counts
from ccsam_hf.data.draws import Draw
from ccsam_hf.data.samplers import ClassSampler
from ccsam_hf.data.views import ImageConfig, TransformedImages, image_views

CONFIG = ImageConfig(input_size=(3, 24, 24), crop_pct=0.75)


def photos(tmp_path, count: int = 6) -> datasets.Dataset:
    generator = np.random.default_rng(0)
    paths = []
    for i in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        paths.append(str(tmp_path / f"{i}.png"))
        coarse.resize((40 + 5 * i, 36), Image.Resampling.BICUBIC).save(paths[-1])
    rows = {"image": paths, "label": [i % 2 for i in range(count)]}
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def stacked(items) -> torch.Tensor:
    return torch.stack([item["pixel_values"] for item in items])


def test_plain_indices_get_timms_evaluation_transform(tmp_path):
    dataset = photos(tmp_path)
    timm = create_transform(
        CONFIG.input_size, mean=CONFIG.mean, std=CONFIG.std, crop_pct=0.75, interpolation="bilinear"
    )
    data = TransformedImages(dataset, CONFIG, augmentation="imagenet")
    for i in (0, 3):
        assert torch.equal(data[i]["pixel_values"], timm(dataset[i]["image"]))
        assert data[i]["labels"] == i % 2


@pytest.mark.parametrize("name", augmentation_names("transform"))
def test_an_item_is_a_function_of_seed_epoch_and_position(tmp_path, name):
    dataset = photos(tmp_path)
    data = TransformedImages(dataset, CONFIG, augmentation=name)
    draws = [Draw(i, 1, i) for i in range(6)]
    together = stacked(data.__getitems__(draws))
    state = torch.get_rng_state()
    assert torch.equal(stacked([data[draw] for draw in reversed(draws)]), together.flip(0))
    assert torch.equal(torch.get_rng_state(), state)
    later = stacked(data.__getitems__([Draw(i, 2, i) for i in range(6)]))
    other = stacked(TransformedImages(dataset, CONFIG, augmentation=name, seed=1).__getitems__(draws))
    assert torch.equal(together, later) == torch.equal(together, other) == (name == "none")
    assert torch.equal(pickle.loads(pickle.dumps(data))[draws[2]]["pixel_values"], together[2])
    assert torch.equal(data.select([4, 2])[Draw(1, 1, 2)]["pixel_values"], together[2])


def test_workers_change_nothing(tmp_path):
    data = TransformedImages(photos(tmp_path), CONFIG, augmentation="randaugment")
    sampler = ClassSampler(data.labels, "class")
    batches = list(DataLoader(data, batch_size=2, sampler=sampler, num_workers=2, multiprocessing_context="fork"))
    expected = stacked(data.__getitems__(list(sampler)))
    assert torch.equal(torch.cat([batch["pixel_values"] for batch in batches]), expected)
    assert class_counts(data).tolist() == [3, 3]


def test_bad_images_and_choices_are_refused(tmp_path):
    dataset = photos(tmp_path)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    data = TransformedImages(dataset, CONFIG)
    with pytest.raises(ValueError, match=r"1.png \(image 1\) cannot be decoded .*skip_broken_images"):
        data[1]
    with pytest.raises(
        ValueError, match=r"'autoaugment_cutout' is not for images transformed one by one: choose .* crop_f"
    ):
        TransformedImages(dataset, CONFIG, augmentation="autoaugment_cutout")
    with pytest.raises(ValueError, match="No column 'img'; the columns are image, label"):
        TransformedImages(dataset, CONFIG, image_column="img")
    with pytest.raises(ValueError, match="mixes Draw and plain"):
        data.__getitems__([Draw(0, 0, 0), 2])


def test_views_of_a_benchmark():
    digits = load_benchmark("digits-lt", holdout=True)
    views = image_views(digits, augmentation="crop", seed=4)
    assert (len(views.train), len(views.validation), len(views.test)) == (319, 130, 500)
    assert views.test.augmentation == views.validation.augmentation == "none"
    assert (views.train.augmentation, views.train.seed) == ("crop", 4)
    lazy = image_views(digits, in_memory=False)
    torch.testing.assert_close(lazy.test[7]["pixel_values"], views.test[7]["pixel_values"], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"images are \[3, 8, 8\], the input size is \[3, 16, 16\]"):
        image_views(digits, config=ImageConfig(input_size=(3, 16, 16)))


def test_the_docstring_names_functions_that_exist():
    names = re.findall(r"`(load_\w+)`", image_views.__doc__)
    assert names
    assert all(hasattr(ccsam_hf, name) for name in names)
