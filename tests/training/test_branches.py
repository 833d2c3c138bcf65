"""The loss of residual branches against a loop, and in the first stage's step."""

import pytest
import torch

from ccsam_hf.losses import CrossEntropy, Target
from ccsam_hf.models import replace_classifier
from ccsam_hf.shots import ShotThresholds
from ccsam_hf.training.branches import BranchLoss, branch_members


def reference(logits, labels, members, weight):
    """(1 − β) F + β I, one sample and branch at a time."""
    total, number = 0.0, 0
    for branch, classes in zip(logits, members, strict=True):
        for row, y in zip(branch, labels, strict=True):
            if classes[y]:
                total, number = total - row.log_softmax(0)[y], number + 1
    fused = torch.stack([-row.log_softmax(0)[y] for row, y in zip(logits.sum(0), labels, strict=True)]).mean()
    return (1 - weight) * fused + weight * total / number


def test_members() -> None:
    members = branch_members(torch.tensor([17, 9, 4, 2]), ShotThresholds(10, 5))
    assert members.tolist() == [[True] * 4, [False, True, True, True], [False, False, True, True]]


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_against_the_loop(weight) -> None:
    logits = torch.randn(3, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 2])
    members = branch_members(torch.tensor([17, 9, 4, 2]), ShotThresholds(10, 5))
    loss, target = CrossEntropy(4), Target(labels)
    fused = loss(logits.sum(0), target).mean()
    found = fused + BranchLoss(logits, members, weight).correction(lambda x: loss(x, target), target, fused)
    torch.testing.assert_close(found, reference(logits, labels, members, weight))


def test_a_step_of_the_first_stage(toy, tmp_path) -> None:
    def model():
        built = toy.model("vit")
        torch.manual_seed(4)
        replace_classifier(built, "reslt", "classifier", branch_weight=0.6)
        return built

    trainer = toy.trainer(
        tmp_path, model=model(), perturbation="none", max_steps=1, per_device_train_batch_size=32,
        optim_args="momentum=0", lr_scheduler_type="constant",
    )  # fmt: skip
    expected = model()
    batch = trainer.data_collator(trainer.train_dataset)
    z = expected.vit(batch["pixel_values"]).last_hidden_state[:, 0]
    members = branch_members(torch.tensor(toy.counts), ShotThresholds(10, 5))
    reference(expected.classifier.branch_logits(z), batch["labels"], members, 0.6).backward()
    trainer.train()
    after = dict(trainer.model.named_parameters())
    for name, old in expected.named_parameters():
        gradient = torch.zeros_like(old) if old.grad is None else old.grad
        torch.testing.assert_close(after[name], old - trainer.args.learning_rate * gradient, rtol=1e-4, atol=1e-5)
    assert not torch.equal(after["classifier.branches"], expected.classifier.branches)


@pytest.mark.parametrize(("kind", "loss"), [("reslt", "cross_entropy"), ("tde", "cross_entropy"), ("cosine", "ldam")])
def test_replaced_classifiers_train_in_the_first_stage_and_resume(toy, tmp_path, kind, loss) -> None:
    def trainer(**more):
        model = toy.model("cnn")
        torch.manual_seed(4)
        replace_classifier(model, kind)
        return toy.trainer(tmp_path, model=model, perturbation="none", loss=loss, **more)

    whole = trainer(save_strategy="steps", save_steps=3)
    before = toy.weights(whole)
    whole.train()
    same = [name for name, value in toy.weights(whole).items() if torch.equal(value, before[name])]
    assert same == (["timm_model.fc.scale"] if kind == "cosine" else [])
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    for name, value in toy.weights(whole).items():
        assert torch.equal(toy.weights(resumed)[name], value), name
