"""Several sweeps of one command: their jobs share the slots of the machine."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.artifacts import wait_for
from tests.sweeps.test_launchers import ROOT

SWEEP = """
import pathlib, sys
from hydra_plugins.xai_launchers import Processes
from xai.core.launching import Command, end_with_the_launcher
end_with_the_launcher()  # as the command line does
(name,) = (each.partition("=")[2] for each in sys.argv if each.startswith("sweep="))
folder = pathlib.Path(f"outputs/{name}")
commands = [
    Command((sys.executable, "job.py", f"{name}{job}"), folder / str(job), pathlib.Path.cwd(), {})
    for job in range(1 if pathlib.Path("one").exists() else 2)
]
print(name, *Processes(jobs=2).run(commands), flush=True)
sys.exit(name == "b")
"""
# The last job of `a` ends when one of `b` runs beside it, and never are there more than two.
JOB = """
import os, pathlib, sys, time
from xai.core.launching import end_with_the_launcher
end_with_the_launcher()
mine = pathlib.Path(f"running-{sys.argv[1]}")
mine.touch()
there = list(pathlib.Path().glob("running-*"))
assert len(there) <= 2, there
deadline = time.monotonic() + 60
last = "a0" if pathlib.Path("one").exists() else "a1"
while sys.argv[1] == last and not list(pathlib.Path().glob("*-b0")):
    assert time.monotonic() < deadline
    time.sleep(0.02)
while pathlib.Path("wait").exists():
    time.sleep(0.02)
mine.rename(f"ended-{sys.argv[1]}")
"""
COMMAND = """
import sys
from xai.core.composing import look_in
from xai.sweeps.ending import run_sweeps
look_in({!r})
sys.argv[0] = "sweep.py"
sys.exit(run_sweeps({{"sweep": "a,b"}}, ["-m", "sweep=a,b"]))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sweep.py").write_text(SWEEP)
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "conf" / "sweep").mkdir(parents=True)
    for name in "ab":
        (tmp_path / "conf" / "sweep" / f"{name}.yaml").touch()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def begin(place: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", COMMAND.format(str(place / "conf"))]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True)


def test_the_next_sweep_begins_when_no_job_of_the_last_one_waits_and_they_share_the_slots(place: Path) -> None:
    process = begin(place)
    heard, _ = process.communicate()
    ends = {line[0]: line[2:] for line in heard.splitlines() if line[1:].startswith(" ") and line[0] in "ab"}
    assert ends == dict.fromkeys("ab", "0 0"), heard
    assert process.returncode == 1  # one of them has not ended well
    assert len(list(place.glob("ended-*"))) == 4


def test_a_sweep_of_one_job_leaves_the_other_slots_to_the_next(place: Path) -> None:
    (place / "one").touch()
    process = begin(place)
    heard, _ = process.communicate()
    assert process.returncode == 1, heard
    assert len(list(place.glob("ended-*"))) == 2


def test_all_end_with_the_command(place: Path) -> None:
    (place / "wait").touch()
    process = begin(place)
    wait_for(lambda: len(list(place.glob("running-*"))) == 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # comes to its end when nobody has the pipe any more
    (place / "wait").unlink()
    assert not list(place.glob("ended-*"))
