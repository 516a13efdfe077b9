"""A sweep: its jobs, what happens where one fails, what is known of it, and what it comes to together."""

import json
from pathlib import Path

import pytest
import yaml

from tests.sweeps.conftest import Sweeping, measured
from xai.core import locks
from xai.core.records import path_of, recorded

RUNS = Path("outputs/toy")


def results() -> str:
    return (RUNS / "results" / "tables.csv").read_text()


def test_a_short_file_is_a_sweep_and_ends_with_a_joint_table(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "sweep=toy") == 0
    assert {path.name for path in RUNS.iterdir() if path.is_dir()} == {"seed=0", "seed=1", "seed=2", "results", "jobs"}
    about = yaml.safe_load((RUNS / "results" / "about.yaml").read_text())
    assert (about["command"], about["runs"]) == ("python run.py --config-dir=conf -m sweep=toy", 3)
    assert "salvage" in results()
    page = (RUNS / "report.html").read_text()
    assert "Toys" in page
    assert "Look." in page
    assert "3 jobs: 3 done" in capsys.readouterr().out


def test_what_is_typed_takes_the_place_of_an_axis_and_an_experiment_may_bring_a_setting(sweep: Sweeping) -> None:
    # The study of the whole has no surrogate: that of the jobs does.
    assert sweep("-m", "sweep=toy", "seed=4,5", "surrogate.fit.epochs=3") == 0
    assert {path.name for path in RUNS.glob("*seed*")} == {
        *("seed=4,surrogate.fit.epochs=3", "seed=5,surrogate.fit.epochs=3"),
    }


@pytest.mark.parametrize("way", ["UserError", "bug"])
def test_a_job_that_fails_stops_no_other_and_is_listed_with_how_to_repeat_it(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    assert sweep("-m", "sweep=toy", fails={1: way}) == 1
    assert (RUNS / "seed=0/scores.csv").is_file()
    assert (RUNS / "seed=2/scores.csv").is_file()
    out = capsys.readouterr().out
    assert ("it is wrong" if way == "UserError" else "ZeroDivisionError: division") in out
    assert "python run.py study=salvage seed=1 logger=none sweep=toy 'name='\"'\"'toy/seed=1'\"'\"''" in out
    about = yaml.safe_load((RUNS / "results" / "about.yaml").read_text())
    assert about["runs"] == 2
    assert sweep("-m", "sweep=toy") == 0
    assert yaml.safe_load((RUNS / "results" / "about.yaml").read_text())["runs"] == 3


def test_a_stop_stops_all_and_the_state_says_so(sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("-m", "sweep=toy", fails={1: "stop"}) == 130
    capsys.readouterr()
    assert sweep("task=status", "sweep=toy") == 0
    assert "3 jobs: 1 done, 1 killed, 1 missing" in capsys.readouterr().out


def test_every_state_is_told(sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    measured(RUNS / "seed=0", 0)
    with recorded(RUNS / "seed=1"):
        hold = locks.acquire(path_of(RUNS / "sweep", ".lock"))
        assert sweep("task=status", "sweep=toy") == 0
        assert hold is not None
        locks.release(hold)
    assert "3 jobs: 1 done, 1 running, 1 waiting" in capsys.readouterr().out
    assert not (RUNS / ".hydra").exists()


def test_a_report_at_any_time_reads_what_there_is(sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("task=report", "sweep=toy") == 2
    assert "no run has results yet" in capsys.readouterr().err
    measured(RUNS / "seed=2", 2)
    assert sweep("task=report", "sweep=toy") == 0
    assert yaml.safe_load((RUNS / "results" / "about.yaml").read_text())["seeds"] == [2]
    # Runs of elsewhere, as an older version or another machine has called them.
    measured(Path("elsewhere/any name"), 7)
    assert sweep("task=report", "sweep=toy", "runs=elsewhere/*") == 0
    assert yaml.safe_load((RUNS / "results" / "about.yaml").read_text())["seeds"] == [7]


def test_a_sweep_without_a_file_has_a_joint_table_too(sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("-m", "study=salvage", "seed=0,1", "name=mine", "tables=[toy]") == 0
    planned = json.loads(Path("outputs/mine/jobs/sweep.json").read_text())
    assert [job["folder"] for job in planned["jobs"]] == [
        f"outputs/mine/seed={seed},study=salvage,tables=[toy]" for seed in (0, 1)
    ]
    assert (Path("outputs/mine/scores.csv")).is_file()
    capsys.readouterr()
    assert sweep("task=status", "name=mine") == 0
    assert "2 jobs: 2 done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["-m", "sweep=toyy"], "sweep=toyy"),
        (["-m", "sweep=toy", "sead=1"], "sead"),
        (["-m", "sweep=toy", "launcher=rayy"], "launcher=rayy"),
        (["task=status", "name=nothing"], "no -m has been started into outputs/nothing"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str], typed: list[str], said: str
) -> None:
    assert sweep(*typed) == 2
    assert said in capsys.readouterr().err
    assert not Path("outputs").exists()
