"""A published checkpoint with a cosine classifier loads without this package's heads."""

import torch
from transformers import AutoModelForImageClassification

from ccsam_hf.experiment.digits import main
from ccsam_hf.models import load_with_head


def test_a_cosine_classifier_is_folded_and_the_card_says_so(tmp_path) -> None:
    main(
        [
            "--smoke",
            "--method",
            "ldam_drw",
            "--output_dir",
            str(tmp_path),
            "--second_stage",
            "false",
            "--num_train_epochs",
            "2",
        ]
    )
    trained = load_with_head(tmp_path / "stage1" / "model").eval()
    published = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    assert published.config.model_type == "timm_wrapper"
    assert published.config.class_counts == trained.config.class_counts
    images = torch.randn(64, *published.config.pretrained_cfg["input_size"])
    with torch.no_grad():
        expected, actual = (model(pixel_values=images).logits.argmax(1) for model in (trained, published))
    assert torch.equal(actual, expected)
    assert "cosine classifier is folded into one linear layer, with equal predictions" in (
        tmp_path / "model" / "README.md"
    ).read_text(encoding="utf-8").replace("\n", " ")
