"""What transformers' example scripts do with a Trainer works with ours: only the import and the class names change."""

import json

import datasets
import evaluate
import numpy as np
import pytest
import torch
import yaml
from peft import LoraConfig
from torch.utils.data import Dataset
from transformers import AutoModelForImageClassification, DataCollatorWithPadding, PreTrainedTokenizerFast

from ccsam_hf.training import CCSAMTrainer, CCSAMTrainingArguments, ClassifierTrainer, ClassifierTrainingArguments

STAGES = {1: (CCSAMTrainer, CCSAMTrainingArguments), 2: (ClassifierTrainer, ClassifierTrainingArguments)}


def as_labels(items: list[dict]) -> datasets.Dataset:
    """Raw pictures and a column named labels, with the transform of run_image_classification.py."""
    rows = [{"picture": item["pixel_values"].numpy(), "labels": item["label"]} for item in items]
    dataset = datasets.Dataset.from_list(rows).cast_column("labels", datasets.ClassLabel(names=["a", "b", "c", "d"]))

    def transform(batch: dict) -> dict:
        batch["pixel_values"] = [torch.tensor(picture) for picture in batch["picture"]]
        return batch

    dataset.set_transform(transform)
    return dataset


def stacked(items: list[dict]) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]),
        "labels": torch.tensor([item["labels"] for item in items]),
    }


@pytest.mark.parametrize("stage", STAGES)
def test_the_image_script_from_training_to_the_card(toy, tmp_path, stage) -> None:
    data = as_labels(toy.images())
    model = toy.model("resnet")
    model.config.id2label = dict(enumerate("abcd"))
    trainer_class, arguments = STAGES[stage]

    def accuracy(outputs) -> dict[str, float]:
        return {"accuracy": float((np.argmax(outputs.predictions, axis=1) == outputs.label_ids).mean())}

    trainer = trainer_class(
        model=model,
        args=arguments(str(tmp_path), **{**toy.defaults, "num_train_epochs": 1}),
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=accuracy,
        data_collator=stacked,
    )
    result = trainer.train()
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    metrics = trainer.evaluate()
    assert metrics["eval_accuracy"] == pytest.approx(accuracy(trainer.predict(data))["accuracy"]), (
        "compute_metrics of the script sees logits"
    )
    trainer.save_metrics("eval", metrics)
    trainer.create_model_card(
        finetuned_from="someone/base-model",
        tasks="image-classification",
        dataset=None,
        tags=["image-classification", "vision"],
    )
    _, header, text = (tmp_path / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    found = yaml.safe_load(header)
    assert found["base_model"] == "someone/base-model"
    assert found["tags"].count("image-classification") == 1
    assert "vision" in found["tags"]
    assert "Fine-tuned from `someone/base-model`." in text
    assert AutoModelForImageClassification.from_pretrained(tmp_path).config.num_labels == 4


def test_everything_that_the_scripts_pass_enters_the_card(toy, tmp_path) -> None:
    trainer = toy.trainer(tmp_path, num_train_epochs=1)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(
        language="en",
        license="apache-2.0",
        tags="photographs",
        finetuned_from=str(tmp_path),
        tasks=["image-classification"],
        dataset_tags=["someone/pictures"],
        dataset=["Someone's pictures"],
        dataset_args=["plain"],
    )
    _, header, text = (tmp_path / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    found = yaml.safe_load(header)
    assert (found["language"], found["license"], found["datasets"]) == ("en", "apache-2.0", ["someone/pictures"])
    assert "photographs" in found["tags"]
    assert "Data set: Someone's pictures. Configuration: plain." in text
    # A folder of this machine is no base model of the Hub, and its path stays here.
    assert "base_model" not in found
    assert str(tmp_path.parent) not in header + text + (tmp_path / "run.json").read_text(encoding="utf-8")
    with pytest.raises(TypeError, match="nonsense"):
        trainer.create_model_card(nonsense="x")


def word_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *(f"w{k}" for k in range(25))])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


@pytest.mark.parametrize("stage", STAGES)
def test_the_text_script_keeps_its_text_column_and_predicts_without_labels(toy, tmp_path, stage) -> None:
    tokenizer = word_tokenizer()
    generator = np.random.default_rng(0)
    rows = [
        {"sentence": " ".join(f"w{k}" for k in generator.integers(0, 25, 3 + label)), "label": label}
        for label in toy.labels
    ]
    data = datasets.Dataset.from_list(rows).map(lambda batch: tokenizer(batch["sentence"]), batched=True)
    trainer_class, arguments = STAGES[stage]
    trainer = trainer_class(
        model=toy.model("bert"),
        args=arguments(str(tmp_path), **{**toy.defaults, "num_train_epochs": 1}),
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
    )
    assert isinstance(trainer.data_collator, DataCollatorWithPadding)
    trainer.train()
    assert 0 <= trainer.evaluate()["eval_accuracy"] <= 1
    predictions = trainer.predict(data.remove_columns("label"), metric_key_prefix="predict").predictions
    assert predictions.shape == (len(data), toy.classes)
    trainer.create_model_card(finetuned_from="someone/bert", tasks="text-classification")
    assert "text-classification" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", STAGES)
def test_predict_gives_the_models_logits_and_the_metrics(toy, tmp_path, stage) -> None:
    trainer = toy.trainer(tmp_path, stage=stage, num_train_epochs=1)
    trainer.train()
    found = trainer.predict(toy.images())
    trainer.model.eval()
    with torch.inference_mode():
        logits = trainer.model(torch.stack([item["pixel_values"] for item in toy.images()])).logits
    np.testing.assert_allclose(found.predictions, logits.numpy(), rtol=1e-4, atol=1e-5)
    assert found.metrics["test_accuracy"] == trainer.evaluate()["eval_accuracy"]


class Items(Dataset):
    """A plain torch data set: nothing but a length and items."""

    def __init__(self, items: list[dict], key: str) -> None:
        self.items, self.key, self.read = items, key, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        self.read += 1
        item = self.items[int(index)]
        return {"pixel_values": item["pixel_values"], self.key: item["label"]}


@pytest.mark.parametrize("key", ["label", "labels"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_plain_torch_data_set_trains_as_a_list_does(toy, tmp_path, stage, key) -> None:
    plain = toy.trainer(tmp_path / "plain", stage=stage, train_dataset=Items(toy.images(), key))
    listed = toy.trainer(tmp_path / "list", stage=stage)
    plain.train()
    listed.train()
    assert plain.class_counts.tolist() == toy.counts
    for name, value in toy.weights(listed).items():
        assert torch.equal(value, toy.weights(plain)[name]), name


def test_given_counts_spare_a_plain_data_set_the_reading_of_its_labels(toy, tmp_path) -> None:
    data = Items(toy.images(), "label")
    toy.trainer(tmp_path, train_dataset=data, class_counts=toy.counts, num_train_epochs=1).train()
    assert data.read < 2 * len(data)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_refused_by_name(toy, tmp_path, stage, dtype) -> None:
    trainer = toy.trainer(tmp_path, stage=stage, model=toy.model("vit").to(dtype))
    with pytest.raises(ValueError, match=rf"weight vit\.\S+ is {str(dtype)[6:]}.*dtype=torch\.float32.*bf16=True"):
        trainer.train()


@pytest.mark.parametrize("stage", STAGES)
def test_an_adapter_that_froze_the_classifier_is_refused(toy, tmp_path, stage) -> None:
    model = toy.model("vit")
    model.add_adapter(LoraConfig(target_modules=["q_proj", "query"], r=2))
    with pytest.raises(ValueError, match=r"add_adapter.*classifier's included.*merge"):
        toy.trainer(tmp_path, stage=stage, model=model).train()


@pytest.mark.parametrize("stage", STAGES)
def test_names_in_another_order_than_the_models_are_refused(toy, tmp_path, stage) -> None:
    data = as_labels(toy.images())
    model = toy.model("resnet")
    model.config.id2label = dict(enumerate("bacd"))
    trainer_class, arguments = STAGES[stage]
    for options in ({"train_dataset": data}, {"train_dataset": toy.images(), "eval_dataset": data}):
        trainer = trainer_class(
            model=model, args=arguments(str(tmp_path), **toy.defaults), data_collator=None, **options
        )
        with pytest.raises(ValueError, match=r"2 of 4 classes .* 'a' is 0 in the data and 1 in the model"):
            trainer.train()


def test_counts_that_contradict_the_labels_are_refused(toy, tmp_path) -> None:
    wrong = [toy.counts[0] + 1, *toy.counts[1:]]
    with pytest.raises(ValueError, match=r"class 0 has 17 items and 18 in class_counts.*Leave class_counts out"):
        toy.trainer(tmp_path, class_counts=wrong).train()


def test_the_evaluation_loss_is_the_mean_over_samples_whatever_the_batches(toy, tmp_path) -> None:
    losses = [
        toy.trainer(tmp_path, per_device_eval_batch_size=size).evaluate()["eval_loss"]
        for size in (5, 7, len(toy.labels))
    ]
    assert losses == pytest.approx([losses[-1]] * 3, rel=1e-5)


def test_compute_metrics_of_the_evaluate_library(toy, tmp_path) -> None:
    """The scripts load a metric from the Hub; one of this package's own files has the same interface."""
    from pathlib import Path

    import ccsam_hf.metrics

    file = Path(ccsam_hf.metrics.__file__).parent / "long_tail_accuracy"
    metric = evaluate.load(str(file))
    trainer = toy.trainer(tmp_path, num_train_epochs=1)
    trainer.train()
    found = trainer.predict(toy.images())
    result = metric.compute(
        predictions=np.argmax(found.predictions, axis=1),
        references=found.label_ids,
        class_counts=toy.counts,
        many=10,
        few=5,
    )
    assert result["accuracy"] == pytest.approx(found.metrics["test_accuracy"])
    json.dumps(result)
