import functools
import http.server
import json
import re
import threading

import datasets
import huggingface_hub
import numpy as np
import pytest
from data_trees import SHARED, save_image, write_inaturalist, write_list, write_places
from PIL import Image

from ccsam_hf.data.benchmarks import check_record, load_benchmark
from ccsam_hf.data.image_lists import ImageList, as_dataset, check_list, missing_files, read_inaturalist, read_list
from ccsam_hf.data.records import BENCHMARKS
from ccsam_hf.data.sources import read_lists
from ccsam_hf.data.views import TransformedImages

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the field's lists lie in ../shared/data")


def places(root, **options):
    return load_benchmark("places-lt", data_dir=root, subset=True, **options)


def test_lists_over_local_images(tmp_path):
    write_places(tmp_path, [5, 3, 1])
    data = places(tmp_path)
    assert data.class_counts.tolist() == [5, 3, 1]
    assert data.label_names == ("place-0", "place-1", "place-2")
    assert (len(data.validation), len(data.test)) == (3, 6)
    assert data.train[5]["image"].size == (15, 12)
    assert data.train["line"][:] == list(range(1, 10))
    assert data.settings["dropped_images"] == 0


def test_lists_may_lie_elsewhere_and_validation_may_lack(tmp_path):
    write_places(tmp_path / "images", [4, 2], validation=False)
    (tmp_path / "lists").mkdir()
    for file in (tmp_path / "images").glob("*.txt"):
        file.rename(tmp_path / "lists" / file.name)
    data = places(tmp_path / "images", list_dir=str(tmp_path / "lists"))
    assert data.class_counts.tolist() == [4, 2]
    assert data.validation is None


def test_a_stratified_holdout_takes_the_place_of_the_validation_list(tmp_path):
    write_places(tmp_path, [20, 10, 1])
    data = places(tmp_path, holdout=True)
    assert data.class_counts.tolist() == [18, 9, 1]
    assert np.bincount(data.validation["label"]).tolist() == [2, 1]
    both = data.train["line"][:] + data.validation["line"][:]
    assert sorted(both) == list(range(1, 32))


@needs_shared
def test_the_real_lists_agree_with_the_records(tmp_path):
    lists = read_lists(BENCHMARKS["places-lt"], tmp_path, str(SHARED / "splits"), subset=False)
    check_record(BENCHMARKS["places-lt"], lists.train.labels, len(lists.validation), len(lists.test))
    assert lists.label_names[15] == "arena-hockey"
    for name, file in {"imagenet-lt": "ImageNet_LT", "inat2018": "iNaturalist18"}.items():
        record = BENCHMARKS[name]
        counts = json.loads((SHARED / f"splits/{file}_train_class_counts.json").read_text(encoding="utf-8"))
        evaluation = read_list(SHARED / f"splits/{file}_{'test' if name == 'imagenet-lt' else 'val'}.txt", tmp_path)
        check_list(evaluation, record.num_classes)
        check_record(record, np.repeat(np.arange(len(counts)), counts), None, len(evaluation))
        masks = record.thresholds.masks(counts)
        shots = {"imagenet-lt": [385, 479, 136], "inat2018": [842, 4076, 3224]}[name]
        assert [int(mask.sum()) for mask in masks.values()] == shots


@needs_shared
@pytest.mark.slow
def test_places_lt_whole_over_generated_images(tmp_path):
    save_image(tmp_path / "one.jpg")
    for part in ("train", "val", "test"):
        for path in read_list(SHARED / f"splits/Places_LT_{part}.txt", tmp_path).paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).symlink_to(tmp_path / "one.jpg")
    data = load_benchmark("places-lt", data_dir=tmp_path, list_dir=str(SHARED / "splits"))
    assert data.class_counts.sum() == 62_500
    assert data.train[62_499]["image"].size == (15, 12)


@needs_shared
def test_imagenet_folders_are_translated_to_names(tmp_path):
    evaluation = read_list(SHARED / "splits/ImageNet_LT_val.txt", tmp_path)
    write_list(
        tmp_path / "ImageNet_LT_train.txt",
        [(f"{p}.x", c) for p, c in zip(evaluation.paths, evaluation.labels, strict=True)],
    )
    test = read_list(SHARED / "splits/ImageNet_LT_test.txt", tmp_path)
    write_list(tmp_path / "ImageNet_LT_test.txt", list(zip(test.paths, test.labels, strict=True)))
    names = read_lists(BENCHMARKS["imagenet-lt"], tmp_path, None, subset=True).label_names
    assert names[0] == "tench, Tinca tinca"
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")
    assert len(set(names)) == 1000


def test_inaturalist_reads_the_official_layout(tmp_path):
    write_inaturalist(tmp_path, [6, 3, 2])
    data = load_benchmark("inat2018", data_dir=tmp_path, subset=True)
    assert data.class_counts.tolist() == [6, 3, 2]
    assert data.label_names == ("Species 0", "Species 1", "Species 2")
    assert len(data.test) == 3
    assert data.train["label"][:] == [0] * 6 + [1] * 3 + [2] * 2
    assert data.test[2]["image"].size == (15, 12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c["annotations"].pop(), "1 images have no category"),
        (lambda c: c["annotations"].append(dict(c["annotations"][0])), "1 have more than one"),
        (lambda c: c.pop("images"), "is not iNaturalist's annotation format"),
        (lambda c: c["images"].clear(), "lists no image"),
        (lambda c: c["annotations"][0].update(category_id=-1), r"-1 of train_val2018/Aves/1/\w+.jpg \(image \d of"),
        (lambda c: c["images"][1].update(file_name=c["images"][0]["file_name"]), "listed twice"),
    ],
)
def test_spoilt_annotations_are_refused(tmp_path, spoil, message):
    write_inaturalist(tmp_path, [3, 2])
    content = json.loads((tmp_path / "train2018.json").read_text(encoding="utf-8"))
    spoil(content)
    (tmp_path / "train2018.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_benchmark("inat2018", data_dir=tmp_path, subset=True)


def test_cut_off_annotations_are_refused(tmp_path):
    write_inaturalist(tmp_path, [3, 2])
    text = (tmp_path / "train2018.json").read_text(encoding="utf-8")
    (tmp_path / "train2018.json").write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(ValueError, match="or was cut off"):
        read_inaturalist(tmp_path / "train2018.json", tmp_path)


def test_other_sizes_stop_with_what_differs(tmp_path):
    write_places(tmp_path, [5, 3, 1])
    (tmp_path / "Places_LT_test.txt").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Image list .*Places_LT_test.txt is empty"):
        load_benchmark("places-lt", data_dir=tmp_path)
    write_places(tmp_path, [5, 3, 1] + [1] * 362)
    message = (
        "This is not Places-LT: 371 training images instead of 62,500; 5 images in the largest class instead of 4,980; "
        "1 images in the smallest class instead of 5; 730 test images instead of 36,500; 365 validation images instead "
        "of 7,300. If a part of it is meant, pass subset=True (--subset)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        load_benchmark("places-lt", data_dir=tmp_path)


def edit(root, part, old, new):
    file = root / f"Places_LT_{part}.txt"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("part", "old", "new", "message"),
    [
        ("train", "00000001.jpg 0", "00000001.jpg", r"Places_LT_train.txt, line 2: expected `path label`"),
        (
            "train",
            "00000001.jpg 0",
            "00000001.jpg x",
            r"line 2: expected `path label`, found 'train/place-0/00000001.jpg x'",
        ),
        (
            "train",
            "00000001.jpg 0",
            "00000001.jpg -1",
            r"outside 0..2; the first is -1 of train/place-0/00000001.jpg \(line 2 ",
        ),
        ("train", "00000001.jpg 0", "00000000.jpg 1", r"00000000.jpg: line 1 \(label 0\) and line 2 \(label 1\)"),
        ("train", "00000000.jpg 1", "00000000.jpg 5", r"2 of 6 classes have no image: 3 \('3'\), 4"),
        (
            "test",
            "00001000.jpg 1",
            "00001000.jpg 7",
            r"outside 0..2; the first is 7 of val/place-1/00001000.jpg \(line 3 ",
        ),
        (
            "test",
            "val/place-0/00001000",
            "train/place-0/00000000",
            r"1 images of Places_LT_test.txt are also in Places_LT_train.txt",
        ),
        (
            "train",
            "00000001.jpg 0",
            "0000000x.jpg 0",
            r"1 of 9 images .* missing, the first is train/place-0/0000000x.jpg \(line 2 of Places_LT_train.txt\); "
            r"looked for .*holds 00000000.jpg, 00000001.jpg",
        ),
    ],
    ids=["no label", "text label", "negative", "twice", "gap", "beyond", "leak", "missing"],
)
def test_spoilt_lists_are_refused(tmp_path, part, old, new, message):
    write_places(tmp_path, [5, 3, 1])
    edit(tmp_path, part, old, new)
    with pytest.raises(ValueError, match=message):
        places(tmp_path)


def test_images_elsewhere_and_lists_elsewhere_say_where_was_looked(tmp_path):
    write_places(tmp_path / "a", [2, 1])
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"Image list .*Places_LT_train.txt does not exist; .*b holds nothing"):
        places(tmp_path / "b")
    with pytest.raises(
        ValueError, match=r"3 of 3 images .*looked for .*b.train.place-0.*b holds nothing.*as `data_dir`"
    ):
        places(tmp_path / "b", list_dir=str(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"its folder .*nowhere does not exist either"):
        places(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"needs `data_dir` or `hub_dataset`. How to get the data: Lists: https"):
        load_benchmark("places-lt")


def test_no_permission_is_said(tmp_path, monkeypatch):
    write_places(tmp_path, [2, 1])

    def forbidden(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.read_text", forbidden)
        with pytest.raises(ValueError, match=r"No permission to read Image list .*Places_LT_train.txt"):
            places(tmp_path)
    monkeypatch.setattr("ccsam_hf.data.image_lists.os.listdir", forbidden)
    with pytest.raises(ValueError, match="No permission to list the image folder"):
        places(tmp_path)


def test_broken_images_are_dropped_counted_and_reported(tmp_path):
    write_places(tmp_path, [5, 3, 2])
    cut = tmp_path / "train/place-0/00000002.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    (tmp_path / "train/place-1/00000000.jpg").unlink()
    (tmp_path / "val/place-2/00001001.jpg").write_text("no image", encoding="utf-8")
    with pytest.warns(UserWarning, match="Dropped") as caught:
        data = places(tmp_path, skip_broken_images=True)
    messages = " ".join(str(warning.message) for warning in caught)
    assert "Dropped 2 of 10 images of Places_LT_train.txt: train/place-0/00000002.jpg (line 3 of" in messages
    assert "00000000.jpg (line 6 of Places_LT_train.txt): the file does not exist" in messages
    assert "Dropped 1 of 6 images of Places_LT_test.txt" in messages
    assert data.class_counts.tolist() == [4, 2, 2]
    assert data.settings["dropped_images"] == 3


def test_a_class_left_without_images_is_named(tmp_path):
    write_places(tmp_path, [5, 1])
    (tmp_path / "train/place-1/00000000.jpg").unlink()
    with (
        pytest.warns(UserWarning, match="Dropped 1 of 6"),
        pytest.raises(ValueError, match=r"no image: 1 \('place-1'\)"),
    ):
        places(tmp_path, skip_broken_images=True)


def test_a_truncated_image_names_its_file_and_line_on_access(tmp_path):
    write_places(tmp_path, [3, 2])
    cut = tmp_path / "train/place-1/00000000.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    views = TransformedImages(places(tmp_path).train.select([4, 3]))
    with pytest.raises(ValueError, match=r"00000000.jpg \(line 4 of Places_LT_train.txt\) cannot be decoded"):
        views[1]
    assert views[0]["labels"] == 1


def test_missing_files_are_found_folder_by_folder(tmp_path):
    write_places(tmp_path, [3, 2])
    images = read_list(tmp_path / "Places_LT_train.txt", tmp_path)
    assert missing_files(images).tolist() == []
    (tmp_path / images.paths[3]).unlink()
    (tmp_path / images.paths[0]).unlink()
    assert missing_files(images).tolist() == [0, 3]


@pytest.fixture
def served(tmp_path):
    """Address of a local server of the files in `tmp_path / "served"`."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass


def test_lists_are_downloaded_once_from_an_address(tmp_path, served, monkeypatch):
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache")
    # The address is this machine's own: the tests' offline mode would refuse it.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    write_places(tmp_path, [4, 2])
    with pytest.raises(ValueError, match=r"The list .*/Places_LT_train.txt could not be downloaded .* as `list_dir`"):
        places(tmp_path, list_dir=served)
    for file in tmp_path.glob("*.txt"):
        file.rename(tmp_path / "served" / file.name)
    assert places(tmp_path, list_dir=served).class_counts.tolist() == [4, 2]


def test_empty_lines_keep_the_numbers_of_the_others(tmp_path):
    (tmp_path / "list.txt").write_text("a b.jpg 0\n\n  c.jpg   1  \n", encoding="utf-8")
    images = read_list(tmp_path / "list.txt", tmp_path)
    assert images.paths == ["a b.jpg", "c.jpg"]
    assert images.where(1) == "c.jpg (line 3 of list.txt)"
    assert as_dataset(images, ["x", "y"]).features["label"].names == ["x", "y"]
    assert isinstance(images, ImageList)


def test_lists_over_a_hub_data_set_are_matched_by_file_name(tmp_path):
    write_places(tmp_path, [3, 2], validation=False, tests=1)
    rows: dict = {"train": [], "validation": []}
    for split, folder in (("train", "train"), ("validation", "val")):
        for path in sorted((tmp_path / folder).rglob("*.jpg"), reverse=True):
            stored = f"{path.parent.name}/{path.name}"
            rows[split].append({"bytes": path.read_bytes(), "path": stored})
    hub = tmp_path / "hub"
    hub.mkdir()
    for split, images in rows.items():
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        part = datasets.Dataset.from_dict({"image": images, "label": [-1] * len(images)}, features=features)
        part.to_parquet(hub / f"{split}.parquet")
    data = load_benchmark("places-lt", hub_dataset=str(hub), list_dir=str(tmp_path), subset=True)
    assert data.class_counts.tolist() == [3, 2]
    assert data.train["label"][:] == [0, 0, 0, 1, 1]
    expected = np.asarray(Image.open(tmp_path / "train/place-1/00000000.jpg"))
    np.testing.assert_array_equal(np.asarray(data.train[3]["image"]), expected)
    edit(tmp_path, "train", "00000001.jpg 1", "00000009.jpg 1")
    with pytest.raises(
        ValueError, match=r"1 of 5 images .*are not in .*the first is train/place-1/00000009.jpg \(line 5"
    ):
        load_benchmark("places-lt", hub_dataset=str(hub), list_dir=str(tmp_path), subset=True)
