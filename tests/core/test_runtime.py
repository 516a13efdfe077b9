import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.classifiers.tiny import runtime
from xai.core.runtime import commit_of, provenance
from xai.core.training import TrainerParams


def test_several_devices_make_other_numbers_and_one_is_not_worth_a_word(tmp_path: Path) -> None:
    own_runtime = runtime(tmp_path)
    assert own_runtime.with_precision({"seed": 1}) == {"seed": 1, "precision": "32-true"}
    two = replace(own_runtime, trainer=TrainerParams(accelerator="cpu", devices=2))
    assert two.with_precision({"seed": 1}) == {"seed": 1, "precision": "32-true", "devices": 2}


def test_provenance_names_the_packages_that_make_the_numbers() -> None:
    found = provenance()
    assert torch.__version__.startswith(found["versions"]["torch"].split("+")[0])
    assert {"xai", "open_clip_torch", "pytorch-lightning"} <= set(found["versions"])
    assert found["commit"] is None or len(found["commit"]) == 40


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_commit_of_a_clone_of_another_user_is_read_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert len(commit) == 40
    git(tmp_path, "worktree", "add", "--quiet", "--detach", "beside")
    git(tmp_path, "config", "core.fsmonitor", f"touch {tmp_path / 'run'}")
    # What git's own tests have for a repository that belongs to somebody else.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(subprocess.CalledProcessError):
        git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path) == commit
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # of a hook that runs a command
    assert commit_of(tmp_path) == commit_of(tmp_path / "beside") == commit
    assert not (tmp_path / "run").exists()
    (tmp_path / "site-packages").mkdir()
    assert commit_of(tmp_path / "site-packages") is None
