from pathlib import Path

import pytest
import wandb

from xai.core.errors import UserError
from xai.core.loggers import LoggerParams, build_logger, closing_logger


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


class Run:
    """What W&B holds while a job runs."""


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr(wandb, "run", Run())
    monkeypatch.setattr(wandb, "finish", lambda exit_code: codes.append(exit_code))
    return codes


def test_a_job_that_ends_well_finishes_its_run(finished: list[int]) -> None:
    with closing_logger():
        assert finished == []
    assert finished == [0]


@pytest.mark.parametrize("error", [UserError("wrong"), KeyboardInterrupt()])
def test_a_job_that_fails_finishes_its_run_and_keeps_its_error(finished: list[int], error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, closing_logger():
        raise error
    assert caught.value is error
    assert finished == [1]


def test_without_a_run_nothing_is_finished(finished: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "run", None)
    with closing_logger():
        pass
    assert finished == []


def test_what_wandb_refuses_is_told_with_a_way_out(finished: list[int]) -> None:
    with pytest.raises(UserError, match=r"no key.*WANDB_MODE=offline or logger=csv"), closing_logger():
        raise wandb.errors.UsageError("no key")
    assert finished == [1]


def test_disabled_means_no_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert build_logger(LoggerParams("wandb"), tmp_path, "job") is False
    assert build_logger(LoggerParams("csv"), tmp_path, "job") is not False
