import copy
import io
import pickle

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from ccsam_hf.data.augment import augmentation_names, crop_and_flip, cutout_mask
from ccsam_hf.data.counts import class_counts
from ccsam_hf.data.draws import Draw
from ccsam_hf.data.samplers import ClassSampler
from ccsam_hf.data.views import TensorImages

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
PIXELS = torch.randint(0, 256, (20, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = np.arange(20) % 4


def images(augmentation: str = "none", seed: int = 0) -> TensorImages:
    return TensorImages(PIXELS, LABELS, mean=MEAN, std=STD, augmentation=augmentation, seed=seed)


def stacked(items) -> torch.Tensor:
    return torch.stack([item["pixel_values"] for item in items])


def test_plain_indices_give_normalised_images_whatever_the_augmentation():
    normalise = v2.Normalize(MEAN, STD)
    expected = torch.stack([normalise(PIXELS[i].float() / 255) for i in (3, 1)])
    for name in augmentation_names("batch"):
        items = images(name).__getitems__([3, 1])
        torch.testing.assert_close(stacked(items), expected, rtol=0, atol=1e-6)
        assert [item["labels"] for item in items] == [3, 1]


@pytest.mark.parametrize("name", augmentation_names("batch"))
def test_an_item_is_a_function_of_seed_epoch_and_position(name):
    draws = [Draw(i % 20, epoch=2, position=i) for i in range(40)]
    together = stacked(images(name).__getitems__(draws))
    alone = stacked([images(name)[draw] for draw in draws])
    assert torch.equal(together, alone)
    torch.rand(3)
    assert torch.equal(stacked(images(name).__getitems__(draws[::-1])), together.flip(0))
    later = stacked(images(name).__getitems__([Draw(int(d), 3, d.position) for d in draws]))
    other = stacked(images(name, seed=1).__getitems__(draws))
    assert torch.equal(together, later) == torch.equal(together, other) == (name == "none")


def test_crop_and_flip_against_one_image_at_a_time():
    rows, columns, flips = np.array([0, 4, 2]), np.array([1, 0, 4]), np.array([True, False, True])
    ours = crop_and_flip(PIXELS[:3], rows, columns, flips, padding=2)
    for i in range(3):
        padded = F.pad(PIXELS[i], (2, 2, 2, 2))
        cut = padded[:, rows[i] : rows[i] + 16, columns[i] : columns[i] + 16]
        assert torch.equal(ours[i], cut.flip(-1) if flips[i] else cut)


def test_crops_and_flips_are_drawn_evenly():
    marker = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    marker[:, :, 8, 8] = 255
    one = TensorImages(marker, [0], mean=(0, 0, 0), std=(1, 1, 1), augmentation="crop_flip")
    batch = one.batch([Draw(0, 0, position) for position in range(5000)])["pixel_values"][:, 0]
    rows, columns = batch.amax(2).argmax(1), batch.amax(1).argmax(1)
    assert set(rows.tolist()) == {6, 7, 8, 9, 10}
    assert torch.bincount(rows).max() / 5000 < 0.23
    # Not mirrored the mark lies at 8 + (-2..2), mirrored at 7 + (-2..2).
    assert set(columns.tolist()) == {5, 6, 7, 8, 9, 10}
    assert abs((columns == 5).float().mean() - 0.1) < 0.02


def test_cutout_against_the_pixel_loop():
    rows, columns = np.array([0, 8, 15]), np.array([15, 8, 3])
    ours = cutout_mask(rows, columns, 8, 16, 16)[:, 0]
    for i in range(3):
        for y in range(16):
            for x in range(16):
                hole = rows[i] - 4 <= y < rows[i] + 4 and columns[i] - 4 <= x < columns[i] + 4
                assert ours[i, y, x] == (0 if hole else 1)


def test_the_cifar_recipe_cuts_a_hole_of_half_the_side():
    batch = images("autoaugment_cutout").batch([Draw(i % 20, 0, i) for i in range(300)])["pixel_values"]
    holes = (batch == 0).all(1).sum((1, 2))
    assert holes.max() == 64
    assert holes.min() >= 16


@pytest.mark.parametrize("start", [None, "fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_change_nothing(start):
    data = images("autoaugment_cutout")
    sampler = ClassSampler(data.labels, "class", seed=3)
    sampler.set_epoch(1)
    workers = 2 if start else 0
    loader = DataLoader(data, batch_size=6, sampler=sampler, num_workers=workers, multiprocessing_context=start)
    batches = list(loader)
    expected = data.batch(list(sampler))
    assert torch.equal(torch.cat([batch["pixel_values"] for batch in batches]), expected["pixel_values"])
    assert torch.equal(torch.cat([batch["labels"] for batch in batches]), expected["labels"])


def test_labels_selection_and_pickling():
    data = images("crop_flip", seed=9)
    assert class_counts(data).tolist() == [5, 5, 5, 5]
    chosen = data.select([7, 2])
    assert chosen.labels.tolist() == [3, 2]
    draw = Draw(7, 1, 4)
    assert torch.equal(chosen[Draw(0, 1, 4)]["pixel_values"], data[draw]["pixel_values"])
    assert torch.equal(pickle.loads(pickle.dumps(data))[draw]["pixel_values"], data[draw]["pixel_values"])
    assert torch.equal(copy.deepcopy(data).to("cpu")[draw]["pixel_values"], data[draw]["pixel_values"])


def encoded(pixels: np.ndarray) -> dict:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def stored(rows: list[dict]) -> datasets.Dataset:
    rows = {"image": rows, "label": [0] * len(rows)}
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def test_data_sets_are_decoded_once_in_rgb():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    dataset = stored([encoded(np.stack([grey] * 3, -1)), encoded(grey)]).select([1, 0])
    data = TensorImages.from_dataset(dataset, mean=MEAN, std=STD)
    assert torch.equal(data.images, torch.from_numpy(grey).expand(2, 3, 8, 8))
    assert class_counts(data).tolist() == [2]


def test_bad_images_are_refused():
    whole = encoded(np.zeros((8, 8, 3), np.uint8))
    cut = {"bytes": whole["bytes"][:40], "path": None}
    with pytest.raises(ValueError, match=r"image 1 cannot be decoded .*skip_broken_images"):
        TensorImages.from_dataset(stored([whole, cut]), mean=MEAN, std=STD)
    small = encoded(np.zeros((4, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"Image 1 has 8 x 4 pixels, the first has 8 x 8.*in_memory=False"):
        TensorImages.from_dataset(stored([whole, small]), mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="No column 'img'; the columns are image, label"):
        TensorImages.from_dataset(stored([whole]), mean=MEAN, std=STD, image_column="img")
    with pytest.raises(ValueError, match="is empty"):
        TensorImages.from_dataset(stored([whole]).select([]), mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="'imagenet' is not for images in memory: choose one of none, crop"):
        images("imagenet")
    with pytest.raises(ValueError, match="uint8"):
        TensorImages(PIXELS.float(), LABELS, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="20 images but 3 labels"):
        TensorImages(PIXELS, LABELS[:3], mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="mixes Draw and plain"):
        images("crop").batch([Draw(0, 0, 0), 1])
