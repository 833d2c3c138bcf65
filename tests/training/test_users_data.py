"""Data sets, collators and models as users bring them: trained, or refused with the reason and the remedy."""

import pickle

import datasets
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import default_data_collator

from ccsam_hf.data import labels_of
from ccsam_hf.training.label_range import LabelRange

TOKENS = ("input_ids", "attention_mask")


def tokens_only(items: list[dict]) -> dict[str, torch.Tensor]:
    """Like a padding collator: makes a tensor of every column, and cannot without tokens."""
    if "input_ids" not in items[0] or any(isinstance(value, str) for value in items[0].values()):
        raise ValueError("these are not tokens")
    batch = {name: torch.stack([torch.as_tensor(item[name]) for item in items]) for name in TOKENS}
    return {**batch, "labels": torch.tensor([item["label"] for item in items])}


def texts(toy) -> datasets.Dataset:
    """Tokenised texts that still have the column of the text, as `map` leaves it."""
    return datasets.Dataset.from_list(
        [{name: value.tolist() for name, value in x.items() if name != "label"} | {"text": "words", "label": x["label"]}
         for x in toy.texts()]
    )  # fmt: skip


class Unreadable(Dataset):
    """Items whose labels nobody knows beforehand."""

    def __init__(self, items: list[dict]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        return self.items[int(index)]


def text_trainer(toy, folder, **options):
    data = texts(toy)
    return toy.trainer(
        folder, model="bert", train_dataset=data, eval_dataset=data, data_collator=tokens_only, **options
    )


@pytest.mark.parametrize("stage", [1, 2])
def test_a_column_that_the_collator_cannot_batch(toy, tmp_path, stage) -> None:
    with pytest.raises(ValueError, match=r"items \(input_ids.*text.*remove_unused_columns=True. .* not tokens"):
        text_trainer(toy, tmp_path, stage=stage).train()
    trainer = text_trainer(toy, tmp_path, stage=stage, remove_unused_columns=True)
    before = toy.weights(trainer)
    trainer.train()
    assert not torch.equal(toy.weights(trainer)["classifier.weight"], before["classifier.weight"])


def test_cached_features_need_no_collator_that_knows_them(toy, tmp_path) -> None:
    """A collator for tokens, or the removal of columns that no model names, must not see the cache."""
    results = []
    for cached in (False, True):
        trainer = text_trainer(toy, tmp_path, stage=2, remove_unused_columns=True, cache_features=cached)
        trainer.train()
        results.append(toy.weights(trainer)["classifier.weight"])
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def test_labels_that_only_items_tell_fill_the_cache(toy, tmp_path) -> None:
    options = {"train_dataset": Unreadable(toy.images()), "class_counts": toy.counts, "stage": 2}
    weights = []
    for data in (options["train_dataset"], toy.images()):
        trainer = toy.trainer(tmp_path, **{**options, "train_dataset": data}, cache_features=True)
        trainer.train()
        weights.append(toy.weights(trainer)["timm_model.fc.weight"])
    assert torch.equal(*weights)


def with_label(toy, label) -> list[dict]:
    """The last item bears the label, so that no probe of the first items meets it."""
    return [*toy.images()[:-1], {**toy.images()[-1], "label": label}]


def stream(items: list[dict]):
    return datasets.Dataset.from_list(items).with_format("torch").to_iterable_dataset()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Unreadable, {}),
        (Unreadable, {"dataloader_num_workers": 1}),
        (stream, {"max_steps": 4}),
        (Unreadable, {"stage": 2, "cache_features": True}),
    ],
    ids=["unreadable", "workers", "stream", "cached"],
)
@pytest.mark.parametrize(("label", "found"), [(4, "4"), (-1, "-1")])
def test_labels_that_nobody_could_check_before(toy, tmp_path, make, options, label, found) -> None:
    trainer = toy.trainer(
        tmp_path, train_dataset=make(with_label(toy, label)), class_counts=toy.counts, num_train_epochs=1, **options
    )
    message = (
        rf"A batch holds label {found} in column 'label', but the classifier has 4 classes, 0\.\.3: correct or drop"
    )
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_evaluation_labels_that_nobody_could_check_before(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, class_counts=toy.counts, eval_dataset=Unreadable(with_label(toy, 9)))
    with pytest.raises(ValueError, match=r"A batch holds label 9"):
        trainer.evaluate()
    with pytest.raises(ValueError, match=r"A batch holds label 9"):
        trainer.predict(trainer.eval_dataset)


def test_labels_are_checked_where_batches_are_made() -> None:
    """In a worker, hence picklable; never on a device, where reading a label would wait for it."""
    collate = pickle.loads(pickle.dumps(LabelRange(default_data_collator, 3, "label")))
    batch = collate([{"label": 2}, {"label": 0}])
    assert batch["labels"].tolist() == [2, 0]
    for passed_on in ({"labels": torch.full((2,), 7, device="meta")}, {"labels": torch.rand(2, 3)}, {"x": 1}, [1]):
        assert LabelRange(lambda items, batch=passed_on: batch, 3, "label")([]) is passed_on


@pytest.mark.parametrize("stage", [1, 2])
def test_labels_that_may_not_be_written(toy, tmp_path, stage, recwarn) -> None:
    data = datasets.Dataset.from_list(toy.images()).with_format("torch")
    assert not labels_of(data, "label").flags.writeable, "nothing to show"
    toy.trainer(tmp_path, stage=stage, train_dataset=data, class_counts=toy.counts, max_steps=1).train()
    assert toy.trainer(tmp_path, stage=stage, train_dataset=data).evaluate()["eval_accuracy"] >= 0
    assert not [w for w in recwarn if "not writable" in str(w.message)]


@pytest.mark.parametrize("disable_tqdm", [False, True])
def test_the_cache_s_progress_bar_is_the_trainer_s(toy, tmp_path, capfd, disable_tqdm) -> None:
    toy.trainer(tmp_path, stage=2, cache_features=True, max_steps=1, disable_tqdm=disable_tqdm).train()
    assert ("features, view 1 of 1" in capfd.readouterr().err) != disable_tqdm


def test_evaluation_labels_that_the_loss_cannot_take(toy, tmp_path) -> None:
    wrong = datasets.Dataset.from_list([{**item, "label": 4} for item in toy.images()])
    for evaluated in (wrong, {"field": wrong}):
        with pytest.raises(ValueError, match=r"evaluation set.* holds label 4, outside 0\.\.3"):
            toy.trainer(tmp_path, eval_dataset=evaluated).train()


def test_options_that_would_replace_ours(toy, tmp_path) -> None:
    with pytest.raises(ValueError, match="train_sampling_strategy='sequential' would replace the order of stage 2"):
        toy.trainer(tmp_path, stage=2, train_sampling_strategy="sequential").train()
    with pytest.raises(ValueError, match="batch_eval_metrics needs compute_metrics of your own"):
        toy.trainer(tmp_path, batch_eval_metrics=True)


def test_a_module_that_is_called_otherwise(toy, tmp_path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(ValueError, match=r"Sequential cannot be called with pixel_values by name.*create_model"):
        toy.trainer(tmp_path, model=module).train()


def test_accumulation_where_trainer_trusts_the_model_to_divide(toy, tmp_path) -> None:
    """transformers 5.10 reads no `loss_is_scaled_for_ga`; the loss must be divided all the same."""
    results = []
    for micro_batches in (1, 2):
        trainer = toy.trainer(
            tmp_path,
            model="vit",
            perturbation="none",
            per_device_train_batch_size=16 // micro_batches,
            gradient_accumulation_steps=micro_batches,
        )
        trainer.loss_is_scaled_for_ga, trainer.model_accepts_loss_kwargs = None, True
        trainer.train()
        results.append(toy.weights(trainer))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
