import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, Subset, TensorDataset

from ccsam_hf.data.counts import check_class_counts, check_label_order, class_counts, labels_of

ROWS = {"label": [0, 2, 1, 2, 2], "text": list("abcde")}


def named() -> datasets.Dataset:
    features = datasets.Features(
        {"label": datasets.ClassLabel(names=["cat", "dog", "eel"]), "text": datasets.Value("string")}
    )
    return datasets.Dataset.from_dict(ROWS, features=features)


def undecodable() -> datasets.Dataset:
    """Images that cannot be decoded: reading one would raise."""
    rows = {"image": [{"bytes": b"no image", "path": None}] * 5, "label": ROWS["label"]}
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


@pytest.mark.parametrize(
    "dataset",
    [
        named(),
        named().with_format("torch"),
        undecodable(),
        undecodable().with_transform(lambda batch: {"pixel_values": batch["image"]}),
        [{"label": label} for label in ROWS["label"]],
        [{"label": torch.tensor(label)} for label in ROWS["label"]],
    ],
    ids=["plain", "torch format", "images", "transform", "list", "list of tensors"],
)
def test_labels_and_counts_of_each_kind_never_decode(dataset):
    assert labels_of(dataset).tolist() == [0, 2, 1, 2, 2]
    assert labels_of(dataset).dtype == np.int64
    assert class_counts(dataset).tolist() == [1, 1, 3]
    assert class_counts(dataset).dtype == torch.int64


def test_selections_are_followed():
    assert labels_of(named().select([4, 0])).tolist() == [2, 0]
    assert labels_of(Subset(named().select([4, 0, 2]), [2, 1])).tolist() == [1, 0]


def test_the_column_may_have_another_name():
    assert class_counts(named().rename_column("label", "fine"), label_column="fine").tolist() == [1, 1, 3]


class Stream(IterableDataset):
    def __iter__(self):
        yield {"label": 0}


def column(values) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"label": values})


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (named().rename_column("label", "y"), "No column 'label'; the columns are y, text: choose .*label_column"),
        ([{"y": 1}], "Item 0 has no 'label'; its keys are y"),
        ([3], "Item 0 is a int, not a dict"),
        (column([]).cast_column("label", datasets.Value("int64")), "data set is empty"),
        ([], "data set is empty"),
        (column([0.0, 1.0]), "holds double, not one integer per image"),
        (column([[0, 1], [1, 0]]), "multi-label and soft labels are not supported"),
        ([{"label": [0, 1]}], "multi-label"),
        ([{"label": 0.5}], "holds float64"),
        (column([0, None]), "lacks 1 of 2 labels"),
        (column(["a"]), "class_encode_column"),
        (column([0, -1]), r"Label -1 \(item 1, column 'label'\) is negative"),
        (column([0, 2]), "1 of 3 classes have no image: 1. Give each an image"),
        (named().select([0, 1]), r"no image: 1 \('dog'\)"),
        (named().to_iterable_dataset(), "streaming .* pass `class_counts=`"),
        (Stream(), "streaming .* pass `class_counts=`"),
        (TensorDataset(torch.zeros(2)), "Item 0 is a tuple, not a dict with 'label': .*pass `class_counts=`"),
        (datasets.DatasetDict(train=named()), r"Got all splits \(train\)"),
    ],
)
def test_bad_data_is_refused_with_the_remedy(dataset, message):
    with pytest.raises(ValueError, match=message):
        class_counts(dataset)


def test_labels_beyond_the_number_of_classes_are_named():
    with pytest.raises(ValueError, match=r"Label 2 \(item 1, column 'label'\) lies outside 0\.\.1"):
        class_counts(named(), num_classes=2)
    with pytest.raises(ValueError, match="1 of 4 classes have no image: 3"):
        class_counts(named(), num_classes=4)


def test_names_in_another_order_than_the_models_are_refused():
    check_label_order(named(), ["cat", "dog", "eel"])
    check_label_order(named(), ["LABEL_0", "LABEL_1", "LABEL_2"])
    check_label_order(named(), ["cat", "hound", "eel", "fox"])
    check_label_order(column([0, 1]), ["dog", "cat"])
    with pytest.raises(
        ValueError,
        match=r"2 of 3 classes .*'label' .*'cat' is 0 in the data and 1 in the model, 'dog' is 1 .*align_labels_with",
    ):
        check_label_order(Subset(named(), [0]), ["dog", "cat", "eel"])


def test_the_remedy_for_names_in_another_order_works():
    order = ["eel", "cat", "dog"]
    aligned = named().align_labels_with_mapping({name: label for label, name in enumerate(order)}, "label")
    check_label_order(aligned, order)
    assert labels_of(aligned).tolist() == [1, 0, 2, 0, 0]


@pytest.mark.parametrize("given", [[1, 1, 3], np.array([1, 1, 3]), torch.tensor([1, 1, 3]), [1, 1, 3, 7]])
def test_counts_that_agree_with_the_labels_pass(given):
    check_class_counts(given, named())


def test_counts_that_contradict_the_labels_are_refused():
    with pytest.raises(ValueError, match=r"for 1 of 3 classes: class 2 has 3 items and 5 in class_counts\. Leave"):
        check_class_counts([1, 1, 5], named())
    with pytest.raises(ValueError, match="class_counts has 2 entries, but column 'label' holds label 2"):
        check_class_counts([1, 1], named())
    check_class_counts([5, 5, 5], Stream())
