"""Small models shared by the tests of this room."""

import pytest
import torch
import transformers

from ccsam_hf.models import create_model

transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def cifar_model():
    torch.manual_seed(0)
    return create_model("cifar_resnet20", 5, label_names=["owl", "cat", "emu", "fox", "yak"])
