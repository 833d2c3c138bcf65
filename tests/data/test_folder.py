import datasets
import numpy as np
import pytest
from data_trees import save_image

from ccsam_hf.data.folder import load_images

SIZES = {"ant": 6, "bee": 3, "cow": 1}


def write_classes(root, sizes=SIZES) -> None:
    for label, (name, size) in enumerate(sizes.items()):
        for i in range(size):
            save_image(root / name / f"{i}.png", seed=10 * label + i)
    (root / ".hidden").mkdir()
    (root / "ant" / "notes.txt").write_text("no image", encoding="utf-8")


def files(part: datasets.Dataset) -> set[str]:
    paths = part.cast_column("image", datasets.Image(decode=False))["image"]
    return {path["path"] for path in paths}


def test_train_and_validation_folders(tmp_path):
    write_classes(tmp_path / "train")
    save_image(tmp_path / "val/bee/deep/x.JPG")
    data = load_images(data_dir=tmp_path)
    assert data.class_counts.tolist() == [6, 3, 1]
    assert data.label_names == ("ant", "bee", "cow")
    assert data.test["label"][:] == [1]
    assert data.validation is None
    assert data.record.title == tmp_path.name
    assert str(tmp_path.parent) not in data.record.source
    save_image(tmp_path / "test/ant/y.png")
    data = load_images(data_dir=tmp_path)
    assert (data.test["label"][:], data.validation["label"][:]) == ([0], [1])


def test_one_folder_is_divided_and_keeps_an_image_of_each_class(tmp_path):
    write_classes(tmp_path)
    data = load_images(data_dir=tmp_path, holdout_fraction=0.5)
    assert data.class_counts.tolist() == [3, 1, 1]
    assert np.bincount(data.test["label"]).tolist() == [3, 2]
    assert not files(data.train) & files(data.test)
    assert len(files(data.train) | files(data.test)) == 10
    assert files(load_images(data_dir=tmp_path, holdout_fraction=0.5).test) == files(data.test)
    assert len(load_images(data_dir=tmp_path).test) == 2


def test_a_tenth_can_be_held_out_to_tune_on(tmp_path):
    write_classes(tmp_path / "train", {"ant": 20, "bee": 10})
    write_classes(tmp_path / "test", {"ant": 2, "bee": 1})
    data = load_images(data_dir=tmp_path, holdout=True)
    assert data.class_counts.tolist() == [18, 9]
    assert np.bincount(data.validation["label"]).tolist() == [2, 1]
    assert not files(data.train) & files(data.validation)


def test_broken_images_can_be_dropped(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "ant" / "2.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"Dropped 1 of 10 images of folder .*ant/2.png \(file 3 of"):
        data = load_images(data_dir=tmp_path, skip_broken_images=True)
    assert len(data.train) + len(data.test) == 9
    assert data.settings["dropped_images"] == 1


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"There is no folder .*nowhere"):
        load_images(data_dir=tmp_path / "nowhere")
    save_image(tmp_path / "flat/1.png")
    with pytest.raises(ValueError, match=r"has 0 class folders, at least 2 are needed .*holds 1.png"):
        load_images(data_dir=tmp_path / "flat")
    write_classes(tmp_path / "a/train")
    save_image(tmp_path / "a/val/dog/1.png")
    save_image(tmp_path / "a/val/ant/1.png")
    with pytest.raises(ValueError, match=r"dog is a class that training lacks \(it has ant, bee, cow\)"):
        load_images(data_dir=tmp_path / "a")
    with pytest.raises(ValueError, match=r"`holdout_fraction` has no effect: .*has a folder 'val'"):
        load_images(data_dir=tmp_path / "a", holdout_fraction=0.3)
    (tmp_path / "a/train/elk").mkdir()
    with pytest.raises(ValueError, match=r"Class 'elk' has no image: .*elk holds no (\.avif, )?\.bmp"):
        load_images(data_dir=tmp_path / "a")


def test_one_source_is_needed_and_idle_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"either `data_dir` .* or `hub_dataset`"):
        load_images()
    with pytest.raises(ValueError, match=r"either `data_dir` .* or `hub_dataset`"):
        load_images(data_dir=tmp_path, hub_dataset="a/b")
    write_classes(tmp_path / "flat")
    with pytest.raises(ValueError, match="must be a fraction between 0 and 1, got 0"):
        load_images(data_dir=tmp_path / "flat", holdout_fraction=0)
    name = write_hub(tmp_path / "birds", train=["owl", "jay"] * 10)
    with pytest.raises(ValueError, match="must be a fraction between 0 and 1, got 0"):
        load_images(hub_dataset=name, label_column="species", holdout_fraction=0)
    with pytest.raises(ValueError, match="`image_column` and `label_column` have no effect on a folder"):
        load_images(data_dir=tmp_path, label_column="y")
    with pytest.raises(ValueError, match="`skip_broken_images` has no effect on a Hub data set"):
        load_images(hub_dataset="a/b", skip_broken_images=True)


def write_hub(folder, **splits) -> str:
    """A data set as the Hub serves it, in a folder that `load_dataset` reads."""
    folder.mkdir()
    for split, rows in splits.items():
        images = [{"bytes": b"x", "path": None}] * len(rows)
        part = datasets.Dataset.from_dict({"photo": images, "species": rows}).cast_column("photo", datasets.Image())
        part.to_parquet(folder / f"{split}.parquet")
    return str(folder)


def test_hub_data_sets_with_text_classes(tmp_path):
    name = write_hub(tmp_path / "birds", train=["owl", "jay", "owl"], test=["jay"])
    data = load_images(hub_dataset=name, label_column="species")
    assert data.label_names == ("jay", "owl")
    assert data.class_counts.tolist() == [1, 2]
    assert data.test["label"][:] == [0]
    assert data.record.title == "birds"
    assert (data.settings["origin"], data.record.hub_dataset) == ("data set in folder birds", None)


def test_a_hub_data_set_is_named_in_the_record(tmp_path, monkeypatch):
    parts = datasets.load_dataset(write_hub(tmp_path / "birds", train=["owl", "jay"], test=["jay"]))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: parts)
    data = load_images(hub_dataset="ada/birds", label_column="species")
    assert (data.record.source, data.record.hub_dataset) == ("Hub data set ada/birds", "ada/birds")


def test_hub_data_sets_without_a_test_split_are_divided(tmp_path):
    name = write_hub(tmp_path / "birds", train=["owl", "jay"] * 10)
    data = load_images(hub_dataset=name, label_column="species", holdout_fraction=0.3)
    assert data.class_counts.tolist() == [7, 7]
    assert len(load_images(hub_dataset=name, label_column="species").test) == 4


def test_bad_hub_data_sets_are_refused(tmp_path):
    name = write_hub(tmp_path / "birds", train=["owl", "jay"], validation=["kea"])
    with pytest.raises(ValueError, match="has 0 class columns among photo, species: name one with `label_column`"):
        load_images(hub_dataset=name)
    with pytest.raises(ValueError, match=r"Split 'validation' .* has classes that `train` lacks: kea"):
        load_images(hub_dataset=name, label_column="species")
    with pytest.raises(ValueError, match=r"`holdout_fraction` has no effect: .*has the split 'validation'"):
        load_images(hub_dataset=name, label_column="species", holdout_fraction=0.3)
    with pytest.raises(ValueError, match=r"has no column 'picture'; its columns are photo, species"):
        load_images(
            hub_dataset=write_hub(tmp_path / "b", train=["a", "b"] * 5), image_column="picture", label_column="species"
        )
    name = write_hub(tmp_path / "numbers", train=[0, 1], test=[0])
    with pytest.raises(ValueError, match=r"Column 'species' .* has no class names"):
        load_images(hub_dataset=name, label_column="species")
