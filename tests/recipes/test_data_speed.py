import json
import runpy
from pathlib import Path

import numpy as np

from ccsam_hf.data.image_lists import read_inaturalist

PROGRAM = runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "data_speed.py"))
long_tail, main, write_annotations = PROGRAM["long_tail"], PROGRAM["main"], PROGRAM["write_annotations"]


def test_the_generated_tail_has_the_benchmarks_size_and_ends():
    counts = np.bincount(long_tail(437_513, 8142, 1000, 2))
    assert (counts.sum(), len(counts)) == (437_513, 8142)
    assert (counts.max(), counts.min()) == (1000, 2)


def test_the_generated_annotations_are_of_the_official_layout(tmp_path):
    labels = np.array([0, 0, 1, 2])
    write_annotations(tmp_path / "train.json", labels)
    assert set(json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))) == {
        "info",
        "images",
        "annotations",
        "categories",
    }
    listed, names = read_inaturalist(tmp_path / "train.json", tmp_path)
    assert listed.labels.tolist() == labels.tolist()
    assert listed.paths[3].startswith("train_val2018/Plantae/2/")
    assert names[2] == "Genus species2"


def test_every_measurement_is_printed(capsys):
    main(["--list_images", "2000", "--small_images", "256"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("training set of 2,000 images from")
    assert lines[1].startswith("class counts of 200 classes:")
    assert len(lines) == 2 + 5 + 5
    assert all("images/s" in line for line in lines[-5:])
