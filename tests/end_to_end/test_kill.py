"""`kill -9` in the middle of each stage, then the same command: the numbers of a run that nobody disturbed."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.end_to_end.jobs import PATIENCE, Ended, run, start
from tests.end_to_end.runs import UNDRAWN, Run, link_store, measured

# What must lie in the unfinished folder at the moment of the kill, so that there is something to go on from.
PROGRESS = {
    "base": "checkpoint.ckpt",
    "classifier": "checkpoint.ckpt",
    "maps": "scratch/*.safetensors",
    "explainer": "checkpoint.ckpt",
    "scores": "scratch/*.safetensors",
}
BEFORE = {
    "base": (),
    "classifier": ("base", "head"),
    "maps": ("base", "head", "classifier"),
    "explainer": ("base", "head", "classifier", "maps"),
    "scores": ("base", "head", "classifier", "maps", "explainer", "vector"),
}


def half_made(store: Path, stage: str) -> Callable[[], bool]:
    """Whether some artifact of a stage is half made."""

    def reached() -> bool:
        return any(list(folder.glob(PROGRESS[stage])) for folder in (store / stage).glob("*.partial"))

    return reached


@pytest.mark.parametrize("stage", list(PROGRESS))
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


def table(ended: Ended) -> list[str]:
    """The lines of numbers that a job printed, without those that tell the time."""
    return [line for line in ended.out.splitlines() if re.search(r"\d\.\d\d", line) and " s)" not in line]


@pytest.mark.slow
def test_two_jobs_of_one_name_never_mix(smoke: Run, tmp_path: Path) -> None:
    link_store(smoke.store, tmp_path)
    few = ("rows=[ft_target,brightness]", "figures=[]", "pictures=0", "gallery=0")
    commands = {images: ("experiment=smoke", *few, f"case.images={images}") for images in (20, 30)}
    expected = {images: table(run(tmp_path, *command, "name=alone")) for images, command in commands.items()}
    assert expected[20] != expected[30]
    jobs = {images: start(tmp_path, *command, "name=same") for images, command in commands.items()}
    ended = {images: job.wait() for images, job in jobs.items()}
    for images, each in ended.items():
        assert each.status == 0, each.err
        assert table(each) == expected[images]
    output = tmp_path / "outputs" / "same"
    asked = yaml.safe_load((output / ".hydra" / "overrides.yaml").read_text())
    scores = pd.read_csv(output / "scores.csv").query("split == 'test' and image >= 0")
    assert f"case.images={scores['image'].nunique()}" in asked
