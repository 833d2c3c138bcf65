"""Two processes give exactly, byte by byte, the figures of one."""

from pathlib import Path

import pytest
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState

from ccsam_hf.evaluation import EvaluationOptions, OpenSet, OpenSetOptions, evaluate_model
from ccsam_hf.evaluation.open_recognition import OPEN_SCORERS
from ccsam_hf.evaluation.runner import shard

SIZES = (1, 4, 23)  # less than a batch for each process, one whole batch, and a remainder
FILES = ("metrics.json", "per_class.csv", "predictions.safetensors")


def run(tiny, folder: Path, accelerator: Accelerator) -> None:
    options = EvaluationOptions(progress=False, batch_size=4, bootstrap=10, targets=("backward-5",))
    model = tiny.model(training_prior="train")
    for size in SIZES:
        open_set = OpenSet(tiny.data(7, 1, 3.0), training=tiny.data(33, 2), options=OpenSetOptions(OPEN_SCORERS))
        evaluation = evaluate_model(model, tiny.data(size), options=options, open_set=open_set, accelerator=accelerator)
        if accelerator.is_main_process:
            evaluation.save(folder / str(size))


def two(tiny, folder: str) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # the fork has inherited the parent's single process
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    run(tiny, Path(folder), accelerator)
    broken = tiny.data(9)
    broken[5]["pixel_values"] = broken[5]["pixel_values"] * float("nan")  # in the second batch, so on process 1 alone
    with pytest.raises(ValueError, match="NaN or infinity"):
        evaluate_model(tiny.model(), broken, options=EvaluationOptions(progress=False, batch_size=4))


@pytest.mark.usefixtures("one_thread")
def test_two_processes_equal_one(tiny, tmp_path) -> None:
    run(tiny, tmp_path / "one", Accelerator(cpu=True))
    debug_launcher(two, args=(tiny, str(tmp_path / "two")), num_processes=2)
    for size in SIZES:
        for name in FILES:
            one, both = (tmp_path / number / str(size) / name for number in ("one", "two"))
            assert one.read_bytes() == both.read_bytes(), (size, name)


def test_every_image_is_in_one_batch_of_one_process() -> None:
    batches = [shard(23, 4, process, 3) for process in range(3)]
    assert batches[0] == [[0, 1, 2, 3], [12, 13, 14, 15]]
    assert batches[2] == [[8, 9, 10, 11], [20, 21, 22]]
    assert sorted(i for process in batches for batch in process for i in batch) == list(range(23))
    assert shard(3, 4, 1, 2) == []
