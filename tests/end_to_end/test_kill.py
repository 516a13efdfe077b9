"""`kill -9` in the middle of each stage, then the same command: the numbers of a run that nobody disturbed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.jobs import run, start
from tests.end_to_end.runs import Run, link_store, measured

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
    # Processes that read ahead are a way of their own to resume with the images of the wrong epoch.
    command = ("experiment=smoke", f"trainer.workers={1 if stage == 'classifier' else 0}")
    assert start(tmp_path, *command).kill_when(reached), "the job ended before it could be killed"
    assert reached(), "the kill left nothing half made"
    left = measured(store)
    assert len(left) < len(measured(smoke.store))
    ended = run(tmp_path, *command)
    assert ended.made > 0
    assert not list(store.glob("*/*.partial"))
    assert measured(store) == measured(smoke.store)
    for name in ("explainability_vector.safetensors", "model.safetensors"):
        assert (tmp_path / "outputs" / "smoke" / name).read_bytes() == (smoke.output / name).read_bytes()
