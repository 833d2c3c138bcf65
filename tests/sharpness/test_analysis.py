"""A whole analysis of tiny networks: files, resuming, report, bad input."""

import copy
import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from ccsam_hf.evaluation.image_split import read_counts
from ccsam_hf.sharpness import AnalysisSettings, LabelledSplit, Sizes, analyse
from ccsam_hf.sharpness.bounds import measure_bounds
from ccsam_hf.sharpness.budget import LADDER, Plan, choose_plan, expected_seconds
from ccsam_hf.sharpness.measure import checked_counts, run_folders
from ccsam_hf.sharpness.noise import measure_noise
from ccsam_hf.sharpness.pictures import contour_figure, numbers
from ccsam_hf.sharpness.problem import AnalysedNetwork, untouched
from ccsam_hf.sharpness.saved_results import ResultFolder, fingerprint, plain
from ccsam_hf.sharpness.sharpness_report import rarer_is_larger
from ccsam_hf.sharpness.shot_samples import group_weights
from ccsam_hf.shots import ShotThresholds

SIZES = Sizes(samples=12, few_samples=9, levels=3, seeds=2, grid=3, steps=3, probes=2, ascent_steps=2)
SETTINGS = AnalysisSettings(thresholds=ShotThresholds(many=5, few=4))
COUNTS = torch.tensor([6, 4, 2])
LABELS = torch.repeat_interleave(torch.arange(3), COUNTS)


@pytest.fixture
def split():
    return LabelledSplit("toy train", LABELS, COUNTS)


def test_a_full_analysis_leaves_data_figures_and_report(checkpoint, split, net, tmp_path):
    before = copy.deepcopy(net.state_dict())
    other = replace(checkpoint, label="other", load=checkpoint.run[0][1], run=())
    settings = replace(SETTINGS, scopes=("classifier", "all"), directions=("random",))
    report = analyse([checkpoint, other], split, tmp_path, settings, SIZES)
    text = report.read_text(encoding="utf-8")
    for figure in tmp_path.glob("figures/*.png"):
        assert f"figures/{figure.name}" in text
    assert len(list(tmp_path.glob("figures/*.png"))) == 10
    stems = {path.name.rsplit("-", 1)[0] for path in tmp_path.glob("data/net/*.json")}
    assert stems == {
        *("noise-classifier-random", "noise-all-random", "landscape", "path"),
        *("radii", "radii-history", "bound", "curvature", "sharpness"),
    }
    assert "own evaluation statistics" in text
    assert "with constants as printed" in text.lower()
    assert "*not* a certificate" in text
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    start = json.loads(next(tmp_path.glob("data/net/noise-all-random-*.json")).read_text(encoding="utf-8"))["result"][
        "losses"
    ]
    centre = json.loads(next(tmp_path.glob("data/net/landscape-*.json")).read_text(encoding="utf-8"))["result"][
        "losses"
    ]
    assert start["global"]["all"][0][0] == pytest.approx(centre["overall"][1][1])
    assert start["local"]["few"][0][0] == pytest.approx(centre["tail (few)"][1][1])


def test_finished_measures_are_taken_from_the_folder(checkpoint, split, tmp_path, monkeypatch):
    from ccsam_hf.sharpness import analysis

    settings = replace(SETTINGS, measures=("sharpness",))
    analyse([checkpoint], split, tmp_path, settings, SIZES)
    first = {path: path.read_text(encoding="utf-8") for path in tmp_path.glob("data/net/*.json")}

    def fail(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(analysis, "measure_sam_sharpness", fail)
    analyse([checkpoint], split, tmp_path, settings, SIZES)
    assert first == {path: path.read_text(encoding="utf-8") for path in tmp_path.glob("data/net/*.json")}
    with pytest.raises(AssertionError, match="computed again"):
        analyse([checkpoint], split, tmp_path, replace(settings, sharpness_radius=0.1), SIZES)


def test_only_the_images_of_the_chosen_measures_are_loaded(checkpoint, split, tmp_path):
    loaded = []
    watched = replace(checkpoint, run=(), images=lambda index: loaded.append(len(index)) or checkpoint.images(index))
    for settings, expected, said in (
        (
            replace(SETTINGS, measures=("landscape",)),
            [9],
            ". 9 images for what runs the whole network again",
        ),
        (
            replace(SETTINGS, measures=("noise",), scopes=("classifier",)),
            [12],
            ". 12 images for what runs on the",
        ),
        (replace(SETTINGS, measures=("radii", "sharpness")), [12, 9], "gradients, 9 images for what runs the whole"),
    ):
        (tmp_path / "plan.json").unlink(missing_ok=True)
        loaded.clear()
        text = analyse([watched], split, tmp_path, settings, SIZES).read_text(encoding="utf-8")
        assert loaded[1:] == expected, "the first images are those of the plan"
        assert said in text


def test_a_measure_depends_on_its_own_images_alone(checkpoint, split, tmp_path):
    settings, once = replace(SETTINGS, measures=("radii", "sharpness")), replace(checkpoint, run=())
    analyse([once], split, tmp_path, settings, SIZES)
    analyse([once], split, tmp_path, settings, replace(SIZES, samples=10))
    assert len(list(tmp_path.glob("data/net/radii-*.json"))) == 2
    assert len(list(tmp_path.glob("data/net/sharpness-*.json"))) == 1


def test_re_estimated_statistics_depend_on_the_batch_size(checkpoint, split, tmp_path):
    once = replace(checkpoint, run=())
    for recalibrate, expected in ((False, 1), (True, 2)):
        for batch_size in (5, 4):
            settings = replace(SETTINGS, measures=("landscape",), recalibrate_bn=recalibrate, batch_size=batch_size)
            analyse([once], split, tmp_path / str(recalibrate), settings, SIZES)
        assert len(list(tmp_path.glob(f"{recalibrate}/data/net/landscape-*.json"))) == expected


def test_other_weights_or_images_are_other_results(tmp_path):
    def value_of(weights, keep):
        return {"value": weights}

    tensors = {"w": torch.arange(3.0)}
    assert fingerprint(tensors) == fingerprint({"w": torch.arange(3.0)})
    assert fingerprint(tensors) != fingerprint({"w": torch.arange(3.0).nextafter(torch.tensor(9.0))})
    results = [
        ResultFolder(tmp_path, {"weights": weights}).get("part", {}, partial(value_of, weights))
        for weights in ("a", "b", "a")
    ]
    assert results == [{"value": "a"}, {"value": "b"}, {"value": "a"}]
    assert len(list(tmp_path.iterdir())) == 2


def test_non_finite_losses_are_null_in_the_data_and_masked_in_the_figure(tmp_path):
    surface = torch.tensor([[1.0, 2.0, 3.0], [4.0, torch.inf, torch.nan], [5.0, 6.0, 7.0]])
    result = plain({"axes": [torch.arange(3.0), torch.arange(3.0)], "losses": {"overall": surface}, "masked": 2})
    assert result["losses"]["overall"][1] == [4.0, None, None]
    assert bool(torch.tensor(numbers(result["losses"]["overall"])[1, 1:]).isnan().all())
    assert contour_figure({"net": result}, tmp_path / "f.png").stat().st_size > 1000


def test_exploding_losses_are_counted_in_the_report(net, checkpoint, split, tmp_path):
    """Far from its weights this network gives infinite logits, whatever the processor's arithmetic."""

    class Exploding(type(net)):
        def forward(self, pixel_values):
            logits = super().forward(pixel_values)
            return torch.where(self.head.weight.abs().amax() < 100, logits, torch.inf)

    model = Exploding().double()
    far = replace(
        SETTINGS, measures=("noise",), scopes=("all",), directions=("random",), noise_range=1e6, local_range=0.1
    )
    report = analyse([replace(checkpoint, load=lambda: model, run=())], split, tmp_path, far, SIZES)
    masked = 2 * 2 * 4  # the levels above 0 of the wide range, directions, groups
    assert f"Not finite and masked: {masked} losses of net." in report.read_text(encoding="utf-8")


def test_budget_chooses_the_finest_rung_that_fits():
    one = [expected_seconds(sizes, SETTINGS, 1e-3) for sizes in LADDER]
    assert one == sorted(one)
    plan = choose_plan(one[3] * 2 / 60 * 1.001, SETTINGS, Sizes(), 1e-3, checkpoints=2)
    assert plan.sizes == LADDER[3]
    assert plan.fits
    assert choose_plan(1e-9, SETTINGS, Sizes(), 1e-3) == Plan(LADDER[0], one[0], fits=False)
    assert choose_plan(one[3] / 60, SETTINGS, Sizes(grid=21), 1e-3).sizes.grid == 21
    with pytest.raises(ValueError, match="--budget"):
        choose_plan(0, SETTINGS, Sizes(), 1e-3)


def test_missing_or_foreign_class_counts_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="pass --class_counts FILE"):
        checked_counts("m", None, COUNTS.tolist(), False)
    with pytest.raises(ValueError, match="imbalance ratio and split seed"):
        checked_counts("m", [1, 2, 3], COUNTS.tolist(), False)
    assert checked_counts("m", [1, 2, 3], COUNTS.tolist(), True) == [6, 4, 2]
    assert checked_counts("m", [1, 2, 3], None, False, on_benchmark=False) == [1, 2, 3]
    (tmp_path / "counts.json").write_text("[6, 4, 2]", encoding="utf-8")
    assert read_counts(tmp_path / "counts.json", ["a", "b", "c"]) == [6, 4, 2]
    (tmp_path / "counts.json").write_text('{"b": 4, "a": 6, "c": 2}', encoding="utf-8")
    assert read_counts(tmp_path / "counts.json", ["a", "b", "c"]) == [6, 4, 2]
    with pytest.raises(ValueError, match="c, d differ"):
        read_counts(tmp_path / "counts.json", ["a", "b", "d"])
    with pytest.raises(ValueError, match="class counts of the training set"):
        LabelledSplit("s", LABELS, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"do not lie in 0\.\.1"):
        LabelledSplit("s", LABELS, torch.tensor([6, 6]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_range": -1.0}, "--noise_range must be a positive"),
        ({"local_range": 2.0}, "must lie below --noise_range"),
        ({"measures": ("nose",)}, "choose among noise, landscape"),
        ({"scopes": ()}, "--scopes"),
        ({"radius_scope": "head"}, "--radius_scope"),
        ({"curvature_scope": "last:0"}, "--curvature_scope 'last:0': choose among classifier, last:N"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)


def test_bad_requests_are_refused(checkpoint, split, tmp_path):
    with pytest.raises(ValueError, match="distinct labels"):
        analyse([checkpoint, checkpoint], split, tmp_path, SETTINGS, SIZES)
    with pytest.raises(ValueError, match="use --split train"):
        analyse([checkpoint], replace(split, is_training=False), tmp_path, SETTINGS, SIZES)
    asked = replace(SETTINGS, groups=("medium",), thresholds=ShotThresholds(many=4, few=4, boundaries="strict"))
    with pytest.raises(ValueError, match="--grid must be at least 1"):
        Sizes(grid=0)
    asked = replace(asked, thresholds=ShotThresholds(many=2, few=1))
    with pytest.raises(ValueError, match="'few' has no class"):
        analyse([checkpoint], split, tmp_path, replace(asked, groups=("few",)), SIZES)
    with pytest.raises(ValueError, match="a path needs 3"):
        run_folders(tmp_path)


@pytest.mark.parametrize("scope", ["classifier", "last:1"])
def test_worst_curves_follow_each_groups_own_gradient(net, images, scope):
    pixels, _ = images
    with untouched(net):
        weights = group_weights(LABELS, COUNTS, COUNTS, SETTINGS.thresholds)
        network = AnalysedNetwork(net, pixels, LABELS, weights)
        result = measure_noise(network, scope, "gradient", SETTINGS, SIZES)
        objective = network.objective(scope)
        for name, group in weights.items():
            gradient = objective.gradient(group)
            theta = objective.start + 0.05 * objective.start.norm() * gradient / gradient.norm()
            expected = float(group @ objective.losses(theta).double())
            assert float(result["losses"]["local"][name][-1, 0]) == pytest.approx(expected, rel=1e-6)


def test_certified_bound_needs_every_training_sample(net, images):
    pixels, _ = images
    with untouched(net):
        weights = group_weights(LABELS, COUNTS, COUNTS, SETTINGS.thresholds)
        whole = measure_bounds(AnalysedNetwork(net, pixels, LABELS, weights), SETTINGS, COUNTS)
        assert all(0 < value <= 1 for value in whole["certified"]["bound"].tolist())
        assert whole["overall"]["value"] > whole["overall"]["loss"]
        part = measure_bounds(AnalysedNetwork(net, pixels, LABELS, weights), SETTINGS, COUNTS * 2)
        assert "raise --samples" in part["certified"]["reason"]


@pytest.mark.parametrize(
    ("few_over_many", "rank", "answer"),
    [(1.5, -0.4, "yes"), (0.9, 0.2, "no"), (0.9, -0.2, "undecided"), (1.5, 0.2, "undecided"), (None, -0.2, "yes")],
)
def test_rarer_classes_have_larger_radii_only_where_both_numbers_say_so(few_over_many, rank, answer):
    assert rarer_is_larger(few_over_many, rank) == answer
    assert rarer_is_larger(None, None) == "–"
