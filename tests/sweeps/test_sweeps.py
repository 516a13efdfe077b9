"""A sweep: its jobs, what happens where one fails, what is known of it, and what it comes to together."""

import errno
import json
import os
import re
import socket
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.sweeps.conftest import Sweeping, measured
from tests.toolbox import cases
from xai.core import locks
from xai.core.folders import MARKER
from xai.core.records import QUEUED, path_of, recorded
from xai.sweeps import status

RUNS = Path("outputs/toy")


def test_what_is_typed_takes_the_place_of_an_axis_and_an_experiment_may_bring_a_setting(sweep: Sweeping) -> None:
    # The study of the whole has no surrogate: that of the jobs does.
    assert sweep("-m", "sweep=toy", "seed=4", "surrogate.fit.epochs=3") == 0
    assert [path.name for path in RUNS.glob("*seed*")] == ["seed=4,surrogate.fit.epochs=3"]


def test_where_much_is_typed_the_folders_are_called_by_what_is_swept(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ("epochs=3", "clip=1", "learning_rate=0.001", "weight_decay=0.01", "warmup=0.1", "batch_size=16")
    typed = [f"surrogate.fit.{each}" for each in fit]
    assert sweep("-m", "sweep=toy", "seed=0,1", *typed, fails={1: "UserError"}) == 1
    (folder,) = RUNS.glob("seed=0,rest=????????")
    assert (folder / "scores.csv").is_file()
    command = f"{' '.join(typed)} 'name='\"'\"'toy/seed=1,{folder.name.partition(',')[2]}'\"'\"''"
    assert f"{command}    # it is wrong" in capsys.readouterr().out


def test_jobs_that_fail_stop_no_other_and_what_there_is_is_shown_together(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "launcher=basic", "sweep=toy", fails={0: "UserError", 1: "bug"}) == 1
    assert {path.name for path in RUNS.iterdir() if path.is_dir()} == {"seed=2", "results", "jobs"}
    out = capsys.readouterr().out
    assert "3 jobs: 1 done, 2 failed" in out
    assert "it is wrong" in out
    assert "ZeroDivisionError: division" in out
    command = "python run.py study=salvage seed=1 logger=none sweep=toy 'name='\"'\"'toy/seed=1'\"'\"''"
    assert f"{command}    # ZeroDivisionError: division" in out
    about = yaml.safe_load((RUNS / "results" / "about.yaml").read_text())
    assert (about["command"], about["runs"]) == ("python run.py --config-dir=conf -m sweep=toy", 1)
    assert "salvage" in (RUNS / "results" / "tables.csv").read_text()
    page = (RUNS / "report.html").read_text()
    assert "Toys" in page
    assert "Look." in page


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
    told = " ".join(capsys.readouterr().out.split())
    assert "3 jobs: 1 done, 1 running, 1 waiting" in told
    assert f"process {os.getpid()} on {socket.gethostname()}" in told
    assert "since" in told
    assert re.search(r"on the disk: store [\d,]+ MB, runs [\d,]+ MB", told)
    assert not (RUNS / ".hydra").exists()


def test_the_state_is_told_where_the_folder_may_only_be_read(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def read_only(path: str | Path, flags: int, *more: int, **named: int) -> int:
        if Path(path).parent.name == "jobs" and flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *more, **named)

    with recorded(RUNS / "seed=0"):
        pass
    with recorded(RUNS / "seed=1"), monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        assert sweep("task=status", "sweep=toy") == 0
    assert "3 jobs: 1 done, 1 running, 1 missing" in " ".join(capsys.readouterr().out.split())


def test_a_job_that_is_repeated_alone_is_done_when_it_has_ended(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "sweep=toy", fails={1: "UserError"}) == 1
    assert sweep("study=salvage", "seed=1", "logger=none", "sweep=toy", "name='toy/seed=1'") == 0
    capsys.readouterr()
    assert sweep("task=status", "sweep=toy") == 0
    assert "3 jobs: 3 done" in capsys.readouterr().out


def test_a_run_that_was_killed_before_it_wrote_anything_is_not_done(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(RUNS / "seed=0", 0)
    (RUNS / "seed=1").mkdir()
    (RUNS / "seed=1" / MARKER).write_text('{"written": []}')
    assert sweep("task=status", "sweep=toy") == 0
    assert "3 jobs: 1 done, 2 missing" in capsys.readouterr().out


def test_a_file_has_a_line_for_each_job_without_what_all_are_asked_for(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("study=salvage", "logger=none", "surrogate.fit.epochs=3", "tables=[toy]", "figures=[]", "claims=[]")
    assert sweep("-m", "seed=0,1", "name=mine", *given, fails={1: "UserError"}) == 1
    capsys.readouterr()
    assert sweep("task=status", "name=mine") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["seed=0", "done", "0", "s"] in lines
    assert ["seed=1", "failed", "0", "s", "it", "is", "wrong"] in lines


def test_a_watch_without_a_terminal_says_when_a_job_has_ended(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        measured(RUNS / f"seed={seed}", seed)
    with ExitStack() as running:
        running.enter_context(recorded(RUNS / "seed=2"))
        looks = iter([lambda: None, lambda: None, running.close])
        monkeypatch.setattr(status.time, "sleep", lambda _: next(looks)())
        assert sweep("task=status", "sweep=toy", "watch=1") == 0
    told = re.findall("3 jobs: .*[a-z]", capsys.readouterr().out)
    assert told == ["3 jobs: 2 done, 1 running", "3 jobs: 3 done"]


def test_what_waits_in_the_queue_of_slurm_is_not_missing(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(RUNS / "seed=0", 0)
    (RUNS / "jobs").mkdir()
    for seed in range(3):
        path_of(RUNS / f"seed={seed}", QUEUED).write_text(f"9_{seed}\n")
    monkeypatch.setattr(status, "in_queue", lambda: {"9_0", "9_1"})
    assert sweep("task=status", "sweep=toy") == 0
    assert "3 jobs: 1 done, 1 waiting, 1 missing" in capsys.readouterr().out


def test_a_watch_ends_when_nothing_runs(sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        with recorded(RUNS / f"seed={seed}"):
            pass
    assert sweep("task=status", "sweep=toy", "watch=0.01") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "3 jobs: 3 done" in told
    assert told.count("on the disk") == 1


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


def test_columns_of_plug_ins_are_named_and_nothing_is_imported_that_a_folder_names(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("of_a_stranger.py").write_text("from pathlib import Path\nPath('was_run').touch()\n")
    folder = RUNS / "seed=0"
    measured(folder, 0)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("plugins: [of_a_stranger, json, 'no module']\n")
    assert sweep("task=report", "sweep=toy") == 0
    assert "plug-ins" not in capsys.readouterr().out
    scores = pd.read_csv(folder / "scores.csv")
    pd.concat([scores, scores.assign(metric="notability")]).to_csv(folder / "scores.csv", index=False)
    assert sweep("task=report", "sweep=toy") == 0
    told = "No metric here has the column notability, and the runs had plug-ins: add plugins=[of_a_stranger] for labels"
    assert told in " ".join(capsys.readouterr().out.split())
    assert not Path("was_run").exists()


def test_runs_at_settings_that_a_sweep_no_longer_has_are_named(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "sweep=toy") == 0
    assert sweep("task=report", "sweep=toy") == 0
    assert "no longer has" not in capsys.readouterr().out
    file = Path("conf/sweep/toy.yaml")
    file.write_text(file.read_text().replace("logger: none", "logger: none, surrogate.fit.clip: 1"))
    assert sweep("-m", "sweep=toy", fails={1: "stop"}) == 130
    assert sweep("task=report", "sweep=toy") == 0
    told = "2 of 3 runs were made at settings that the sweep no longer has (seed=1, seed=2): start it again."
    assert told in " ".join(capsys.readouterr().out.split())


def test_a_sweep_without_a_file_has_a_joint_table_too(sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("-m", "study=salvage", "seed=0,1", "name=mine", "tables=[toy]", "figures=[]", "claims=[]") == 0
    planned = json.loads(Path("outputs/mine/jobs/sweep.json").read_text())
    assert [job["folder"] for job in planned["jobs"]] == [
        f"outputs/mine/claims=[],figures=[],seed={seed},study=salvage,tables=[toy]" for seed in (0, 1)
    ]
    assert (Path("outputs/mine/scores.csv")).is_file()
    capsys.readouterr()
    assert sweep("task=status", "name=mine") == 0
    assert "2 jobs: 2 done" in capsys.readouterr().out


def test_what_is_shown_does_not_wait_for_a_table_of_the_documents(sweep: Sweeping) -> None:
    # Of what nobody has measured in these runs.
    assert sweep("-m", "sweep=toy", "sweep.documented=[ranking_mark]") == 0
    assert set(pd.read_csv(RUNS / "results" / "tables.csv")["table"]) == {"toy"}
    assert (RUNS / "report.html").is_file()


def test_a_sweep_may_have_a_folder_elsewhere(sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("study=salvage", "logger=none", "tables=[toy]", "figures=[]", "claims=[]")
    assert sweep("-m", "seed=0,1", "hydra.sweep.dir=elsewhere", *given, fails={1: "UserError"}) == 1
    assert "salvage" in Path("elsewhere/scores.csv").read_text()
    (failed,) = (line for line in capsys.readouterr().out.splitlines() if line.endswith("# it is wrong"))
    assert "'hydra.run.dir='\"'\"'elsewhere/" in failed
    assert "sweep.dir" not in failed


def test_runs_at_other_settings_are_rows_apart_and_what_they_share_is_one(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("-m", "sweep=toy", "surrogate.fit.clip=1,2", "seed=0,1") == 0
    found = pd.read_csv("outputs/toy/toy.csv").set_index("row")
    rows = [f"salvage at surrogate.fit.clip={clip}" for clip in (1, 2)]
    assert list(found.index) == [*rows, "random"]
    assert list(found.label[rows]) == [f"salvage, surrogate.fit.clip={clip}" for clip in (1, 2)]
    assert list(found["mean"]) == pytest.approx([60, 70, 10])
    assert "Not measured" not in capsys.readouterr().out


def test_names_that_differ_in_a_slash_alone_are_told_apart_by_the_user(
    sweep: Sweeping, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xai.app.check", lambda *_: None)
    assert sweep("-m", "study=salvage", "checkpoint=a/b,a-b") == 2
    said = capsys.readouterr().err
    assert "checkpoint=a-b and checkpoint=a/b would have one folder" in said
    assert "with a name=... of its own" in said
    assert not Path("outputs").exists()


@pytest.mark.parametrize(("typed", "said"), cases(__file__, "refused.txt"))
def test_what_is_wrong_is_said_before_any_work(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    assert sweep(*typed.split()) == 2
    assert said in capsys.readouterr().err
    assert not Path("outputs").exists()
