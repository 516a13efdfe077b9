"""A sweep killed three times at random, two jobs and the launcher: the bytes of an undisturbed one, nothing made twice.

The store, its locks and the launcher are the real ones; what the twelve jobs make is small. `python -m
tests.soak_sweep` does the same by hand with networks that are trained.
"""

import collections
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from tests.core.artifacts import wait_for

ROOT = Path(__file__).resolve().parents[2]
JOBS = 12
JOB = """
import os, sys, time
from pathlib import Path
from xai.core.launching import end_with_the_launcher
from xai.core.store import Store

end_with_the_launcher()
number = int(sys.argv[1])

def tell(*words):
    with open("told.txt", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def train(name, steps):
    # As a training does: a step, a checkpoint, and what a killed one has left is gone on with.
    def make(workdir):
        checkpoint = workdir / "checkpoint"
        done = len(checkpoint.read_bytes()) if checkpoint.exists() else 0
        for step in range(done, steps):
            tell("step", name, step)
            time.sleep(0.02)
            (workdir / ".tmp-checkpoint").write_bytes(bytes(step + 1))
            os.replace(workdir / ".tmp-checkpoint", checkpoint)
        (workdir / "weights").write_text(f"{name} after {steps} steps")
    return Store(Path("store")).get("network", {"name": name}, make)

shared = train(f"shared-{number % 3}", 25)
own = train(f"own-{number}", 10)
Path("ended").mkdir(exist_ok=True)
Path(f"ended/{number}").write_text(shared.key + own.key)
"""
SWEEP = """
import sys
from pathlib import Path
from hydra_plugins.xai_launchers import Processes
from xai.core.launching import Command

commands = [
    Command((sys.executable, "-u", "job.py", str(number)), Path(f"outputs/sweep/{number}"), Path.cwd(), {})
    for number in range(%d)
]
sys.exit(any(Processes(jobs=2).run(commands)))
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "job.py").write_text(JOB)
    command = [sys.executable, "-c", SWEEP % JOBS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def children(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task").glob("*/children")
    return [int(each) for path in found for each in path.read_text().split()]


def left(folder: Path) -> dict[str, bytes]:
    files = [*(folder / "ended").iterdir(), *(folder / "store" / "network").glob("*/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "artifact.json"}


def told(folder: Path) -> collections.Counter[str]:
    return collections.Counter((folder / "told.txt").read_text().splitlines())


def steps_of(folder: Path) -> int:
    return sum(line.startswith("step") for line in (folder / "told.txt").read_text().splitlines())


def test_killed_three_times_at_random_and_started_again(tmp_path: Path) -> None:
    quiet, disturbed, generator = tmp_path / "quiet", tmp_path / "disturbed", random.Random(0)
    assert start(quiet).wait() == 0
    sweep, goals = start(disturbed), sorted(generator.sample(range(5, steps_of(quiet) // 2), 3))
    for kill, goal in enumerate(goals):
        wait_for(
            lambda goal=goal: (disturbed / "told.txt").exists() and steps_of(disturbed) >= goal and children(sweep.pid)
        )
        os.kill(sweep.pid if kill == 2 else generator.choice(children(sweep.pid)), signal.SIGKILL)
    assert sweep.wait() == -signal.SIGKILL
    assert start(disturbed).wait() == 0
    assert left(disturbed) == left(quiet)
    assert set(told(quiet).values()) == {1}
    assert set(told(disturbed)) == set(told(quiet))
    # Of a training that was killed the step it was at is done again, and nothing else; two jobs ran at each kill.
    assert steps_of(disturbed) - steps_of(quiet) <= 2 * len(goals)
