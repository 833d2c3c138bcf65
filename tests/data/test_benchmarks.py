from pathlib import Path

import datasets
import numpy as np
import pytest
from data_trees import SHARED
from datasets.exceptions import DatasetNotFoundError

from ccsam_hf.data.benchmarks import load_benchmark
from ccsam_hf.data.long_tail import long_tailed_sizes
from ccsam_hf.data.records import BENCHMARKS, class_report
from ccsam_hf.data.sources import digit_arrays, digit_test_positions

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the benchmark data lie in ../shared/data")
PIXEL = {"bytes": b"not decoded in these tests", "path": None}
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_cifar10(folder: Path, counts, tests: int = 1000, train: str = "train.parquet") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    for file, sizes in {train: counts, "test.parquet": [tests] * len(counts)}.items():
        labels = np.repeat(np.arange(len(counts)), sizes)
        rows = {"img": [PIXEL] * len(labels), "label": labels}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / file)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cifar10")
    write_cifar10(folder, [5000] * 10)
    return folder


@pytest.fixture(scope="module")
def predrawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_cifar10(folder / "cifar10_lt", [int(5000 * 50 ** (-c / 9)) for c in range(10)], train="train_ir50.parquet")
    return folder


@pytest.mark.parametrize(("ratio", "total"), [(200, 11_203), (100, 12_406), (50, 13_996)])
def test_cifar10_from_the_whole_set_and_from_a_draw(full, predrawn, ratio, total):
    whole = load_benchmark("cifar10-lt", imbalance_ratio=ratio, data_dir=full)
    drawn = load_benchmark("cifar10-lt", imbalance_ratio=ratio, data_dir=predrawn, split_seed=None)
    assert len(whole.train) == len(drawn.train) == total
    assert whole.class_counts.tolist() == drawn.class_counts.tolist()
    assert whole.train.column_names == ["image", "label"]
    assert whole.label_names == tuple(NAMES)
    assert whole.validation is None
    assert whole.settings == {
        "origin": f"parquet files {full.name}/train.parquet",
        "dropped_images": 0,
        "holdout": False,
        "imbalance_ratio": ratio,
        "split_seed": 0,
    }


def test_the_tuning_split_of_a_drawn_set(full, predrawn):
    for folder, seed in ((full, 0), (predrawn, None)):
        data = load_benchmark("cifar10-lt", data_dir=folder, split_seed=seed, holdout=True)
        assert data.class_counts.tolist() == [int(4500 * 100 ** (-c / 9)) for c in range(10)]
        validation = np.bincount(data.validation["label"])
        outside = np.bincount(labels(folder)) - data.class_counts.numpy()
        assert validation.tolist() == np.minimum(outside, 500).tolist()
    assert validation.min() == 55


def labels(folder: Path) -> list[int]:
    [file] = folder.rglob("train*.parquet")
    return datasets.Dataset.from_parquet(str(file))["label"][:]


@needs_shared
def test_the_tuning_split_of_cifar100():
    data = load_benchmark("cifar100-lt", data_dir=SHARED / "cifar100", holdout=True)
    assert data.label_names[:2] == ("apple", "aquarium_fish")
    assert np.bincount(data.validation["label"]).tolist() == [50] * 100
    assert data.class_counts.tolist() == [int(450 * 100 ** (-c / 99)) for c in range(100)]
    assert data.train[0]["image"].size == (32, 32)


def test_a_draw_with_a_seed_or_for_a_lower_ratio_is_refused(predrawn):
    with pytest.raises(
        ValueError, match=r"13,996 training images are already a draw .* at imbalance ratio 50.*split_seed=None"
    ):
        load_benchmark("cifar10-lt", data_dir=predrawn)
    with pytest.raises(ValueError, match="too few for CIFAR-10-LT at imbalance ratio 20: use a ratio of at least 50"):
        load_benchmark("cifar10-lt", data_dir=predrawn, split_seed=None, imbalance_ratio=20)


def test_another_pool_is_refused_unless_a_subset_is_meant(tmp_path):
    write_cifar10(tmp_path, [60] * 10, tests=3)
    with pytest.raises(
        ValueError,
        match=r"10 classes with 60 to 60 training images \(600 in all\) and 30 test images, instead of 10 with 5,000",
    ):
        load_benchmark("cifar10-lt", data_dir=tmp_path)
    data = load_benchmark("cifar10-lt", data_dir=tmp_path, imbalance_ratio=20, subset=True)
    assert data.class_counts.tolist() == [int(60 * 20 ** (-c / 9)) for c in range(10)]


def test_files_that_lack_or_collide_are_refused(tmp_path, full):
    with pytest.raises(ValueError, match=r"No train\*.parquet for cifar10-lt in .*holds nothing.*uoft-cs/cifar10"):
        load_benchmark("cifar10-lt", data_dir=tmp_path)
    write_cifar10(tmp_path, [60] * 10)
    write_cifar10(tmp_path, [40] * 10, train="train_ir50.parquet")
    with pytest.raises(ValueError, match=r"several train sets \(train.parquet, train_ir50.parquet\): keep the one"):
        load_benchmark("cifar10-lt", data_dir=tmp_path)
    (tmp_path / "train_ir50.parquet").unlink()
    (tmp_path / "train.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(ValueError, match=r"train.parquet cannot be read as parquet .*download it again"):
        load_benchmark("cifar10-lt", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"train.parquet has no column 'fine_label'; its columns are img, label"):
        load_benchmark("cifar100-lt", data_dir=full)


def test_shards_are_one_set(tmp_path):
    write_cifar10(tmp_path / "plain_text", [30] * 10, train="train-00000-of-00002.parquet")
    write_cifar10(tmp_path / "plain_text", [30] * 10, train="train-00001-of-00002.parquet")
    data = load_benchmark("cifar10-lt", data_dir=tmp_path, imbalance_ratio=20, subset=True)
    assert data.class_counts.tolist() == [int(60 * 20 ** (-c / 9)) for c in range(10)]


@pytest.mark.parametrize(
    "error", [ConnectionError("offline"), DatasetNotFoundError("gated"), FileNotFoundError("gone")]
)
def test_no_network_says_how_to_get_the_data_by_hand(monkeypatch, error):
    def unreachable(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        ValueError, match=r"'uoft-cs/cifar100' could not be loaded .*by hand: put the parquet files .*`data_dir`"
    ):
        load_benchmark("cifar100-lt")
    with pytest.raises(ValueError, match=r"'some/places' could not be loaded .*Places_LT_train.txt.* as `data_dir`"):
        load_benchmark("places-lt", hub_dataset="some/places")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar-lt", {}, r"Unknown benchmark 'cifar-lt': did you mean 'cifar10-lt'\? Choose one of cifar10-lt"),
        ("places-lt", {"imbalance_ratio": 100}, "`imbalance_ratio` has no effect on places-lt"),
        ("digits-lt", {"imbalance_ratio": 0}, "largest over smallest class, at least 1: got 0"),
        ("digits-lt", {"imbalance_ratio": float("nan")}, "at least 1: got nan"),
        ("digits-lt", {"imbalance_ratio": float("inf")}, "at least 1: got inf"),
        ("places-lt", {"split_seed": 1}, "`split_seed` has no effect on places-lt"),
        (
            "places-lt",
            {"hub_dataset": "a/b", "data_dir": "x"},
            "`data_dir` has no effect on places-lt beside hub_dataset",
        ),
        ("places-lt", {"holdout": True, "split_seed": None}, "hold-out of places-lt is drawn by `split_seed`"),
        ("cifar10-lt", {"list_dir": "x"}, "`list_dir` has no effect on cifar10-lt"),
        ("cifar10-lt", {"skip_broken_images": True}, "`skip_broken_images` has no effect on cifar10-lt"),
        ("digits-lt", {"data_dir": "x"}, "`data_dir` has no effect on digits-lt"),
        ("digits-lt", {"hub_dataset": "x"}, "`hub_dataset` has no effect on digits-lt"),
    ],
)
def test_unknown_names_and_idle_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_benchmark(name, **options)


def test_records_are_consistent():
    for record in BENCHMARKS.values():
        if record.drawn_on_loading:
            sizes = long_tailed_sizes(np.full(record.num_classes, record.class_size), record.imbalance_ratio)
            assert (sizes[0], sizes[-1]) == (record.largest_class, record.smallest_class)
        else:
            assert record.train_size > record.num_classes
        assert record.test_size % record.num_classes == 0
        assert all((record.title, record.source, record.licence, record.citation))


def test_digits_are_the_published_ones():
    images, digits = digit_arrays()
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 16)
    assert np.bincount(digits).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    np.testing.assert_array_equal(images, sklearn.images)
    np.testing.assert_array_equal(digits, sklearn.target)


def test_digits_lt_has_every_kind_of_class_and_a_balanced_test_set():
    data = load_benchmark("digits-lt")
    assert data.class_counts.tolist() == [128, 82, 53, 34, 22, 14, 9, 6, 3, 2]
    assert np.bincount(data.test["label"]).tolist() == [50] * 10
    masks = data.record.thresholds.masks(data.class_counts)
    assert [int(mask.sum()) for mask in masks.values()] == [3, 3, 4]
    images, digits = digit_arrays()
    shown = np.asarray(data.test[0]["image"])[..., 0].astype(np.float64)
    first = digit_test_positions(digits)[0]
    np.testing.assert_array_equal(np.round(shown * 16 / 255), images[first])


def test_digits_stay_out_of_the_test_set():
    data = load_benchmark("digits-lt", holdout=True, split_seed=3)
    pixels = {
        part: [np.asarray(i).tobytes() for i in getattr(data, part)["image"]]
        for part in ("train", "validation", "test")
    }
    assert not set(pixels["train"]) & set(pixels["test"])
    assert not set(pixels["train"]) & set(pixels["validation"])
    assert not set(pixels["test"]) & set(pixels["validation"])
    assert np.bincount(data.validation["label"]).tolist() == [13] * 10


def test_the_report_names_the_few_shot_classes():
    text = class_report(load_benchmark("digits-lt"), rows=4)
    assert "353 training, no validation, 500 test images, 10 classes, imbalance ratio 64" in text
    assert "Shots (many 50, few 10, strict): 3 many, 3 medium, 4 few" in text
    assert "zero       128  many\n  one         82  many\n  ... 6 classes between\n  eight        3  few" in text
    assert text.endswith("Few-shot classes: six, seven, eight, nine")
