"""`kill -9` in the middle of each training, then the same command: the numbers of a run that nobody disturbed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.jobs import PATIENCE, run, start
from tests.end_to_end.runs import UNDRAWN, Run, link_store, measured

BEFORE = {
    "base": (),
    "classifier": ("base", "head"),
    "explainer": ("base", "head", "classifier", "maps"),
}
"""What is there when a training begins."""


def half_made(store: Path, stage: str) -> Callable[[], bool]:
    """Whether some artifact of a stage is half made, with something to go on from."""

    def reached() -> bool:
        return any((folder / "checkpoint.ckpt").exists() for folder in (store / stage).glob("*.partial"))

    return reached


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(BEFORE))
def test_killed_in_a_stage_and_started_again(smoke: Run, tmp_path: Path, stage: str) -> None:
    store = link_store(smoke.store, tmp_path, BEFORE[stage])
    reached = half_made(store, stage)
    command = ("experiment=smoke", *UNDRAWN, "rows=[ft_target,proposed]", "trainer.checkpoint_minutes=0")
    # Processes that read ahead are a way of their own to resume with the images of the wrong epoch.
    command = (*command, f"trainer.workers={1 if stage == 'classifier' else 0}")
    assert start(tmp_path, *command).kill_when(reached), "the job ended before it could be killed"
    assert reached(), "the kill left nothing half made"
    left = measured(store)
    ended = run(tmp_path, *command)
    assert ended.made > 0
    assert not list(store.glob("*/*.partial"))
    assert len(left) < len(measured(store))
    assert measured(store).items() <= measured(smoke.store).items()
    for name in ("explainability_vector.safetensors", "model.safetensors"):
        assert (tmp_path / "outputs" / "smoke" / name).read_bytes() == (smoke.output / name).read_bytes()


TRAINING = (
    *("task=train", "method=classifier", "data=digits_cluttered", "model.tower.width=16", "model.tower.depth=2"),
    "trainer.checkpoint_minutes=0",
)


def test_ctrl_c_in_a_training_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    job = start(tmp_path, *TRAINING, "classifier.fit.epochs=1000")
    deadline = time.monotonic() + PATIENCE
    while not (left := list(tmp_path.glob("outputs/store/classifier/*.partial/checkpoint.ckpt"))):
        assert job.process.is_alive(), job.err.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(job.process.pid or 0, signal.SIGINT)
    ended = job.wait()
    assert ended.status == 128 + signal.SIGINT
    assert ended.err.strip() == "stopped; the same command goes on from here"
    assert left[0].exists()
    assert not list(tmp_path.glob("outputs/classifier/*"))


def test_whoever_reads_the_output_may_go(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    job = start(tmp_path, *TRAINING, "classifier.fit.epochs=1", out=pipe)
    with pipe.open() as reader:
        assert "digits_cluttered" in reader.readline()
    job.process.join(PATIENCE)
    assert (job.process.exitcode, job.err.read_text()) == (128 + signal.SIGPIPE, "")
