"""Ctrl-C in a training, and a reader that has gone: the run ends in order, in one line or none, and can go on."""

import os
import signal
import time
from pathlib import Path

from tests.end_to_end.jobs import PATIENCE, start

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
