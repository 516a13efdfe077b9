"""Kill a sweep of twelve jobs at random, two jobs and then its launcher, and let the same command end it: by hand.

    python -m tests.soak_sweep

The store and the joint results have to be those of a sweep that nobody disturbed, byte for byte, and nothing may be
trained twice: a module that every job loads as a plug-in writes down each artifact that is begun and made, and each
step of a training. XAI_SOAK_SEED chooses the moments, XAI_SOAK_PLACE a folder that stays.
"""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.soak import products

ROOT = Path(__file__).resolve().parents[1]
AXES = ("seed=0,1,2", "transfer.alpha=0.6,0.8", "transfer.lambda1=0.9,1.0")
"""Twelve jobs: those of a seed share the classifiers, and those of an alpha the vector as well."""
SWEEP = ("experiment=smoke", *AXES, "name=sweep", "logger=none", "pictures=0", "tables=[]", "claims=[]", "figures=[]")
KEPT = ("trainer.checkpoint_minutes=0", "plugins=[counting]")
COUNTING = """
import json, os
from xai.core import plugins, store, training

def tell(*said):
    with open(os.environ["XAI_COUNTED"], "a") as file:  # one small write each, which nobody comes between
        file.write(json.dumps(said) + "\\n")

def sealed(wanted, make, title, begun, _before=store._sealed):
    def making(workdir):
        tell("begun", wanted.kind, wanted.key)
        return make(workdir)
    artifact = _before(wanted, making, title, begun)
    tell("made", wanted.kind, wanted.key)
    return artifact

def stepped(self, *given, _before=training._Watch.on_train_batch_end, **named):
    tell("step", str(self._path.parent.parent.name), self._path.parent.name.removesuffix(".partial"))
    return _before(self, *given, **named)

store._sealed, training._Watch.on_train_batch_end = sealed, stepped
(lambda: plugins.registered())()  # else it is refused, for it registers nothing
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The sweep in a folder, two jobs at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "counting.py").write_text(COUNTING)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "XAI_COUNTED": str(folder / "counted.jsonl")}
    command = (sys.executable, str(ROOT / "run.py"), "-m", *SWEEP, *KEPT, *arguments)
    with open(folder / "said.txt", "ab") as said:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)


def children(process: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    started = [int(each) for path in lists for each in path.read_text().split()]
    return [*started, *(below for each in started for below in children(each))]


def counted(folder: Path) -> dict[str, collections.Counter[tuple[str, str]]]:
    """How often each artifact was begun and made, and in how many steps it was trained."""
    found: dict[str, collections.Counter[tuple[str, str]]] = collections.defaultdict(collections.Counter)
    for line in (folder / "counted.jsonl").read_text().splitlines():
        what, kind, key = json.loads(line)
        found[what][kind, key] += 1
    return found


def results(folder: Path) -> dict[str, bytes]:
    """The numbers of each job and of all together; what they cost is left out."""
    return {path.parent.name: path.read_bytes() for path in folder.glob("outputs/sweep/**/scores.csv")}


def disturb(folder: Path, generator: random.Random, *arguments: str) -> list[str]:
    """Kill a job, another job, and the launcher, each at a moment of its own; then let the sweep end."""
    kills: list[str] = []
    sweep = start(folder, *arguments)
    while len(kills) < 3:
        time.sleep(generator.uniform(15.0, 60.0))
        if sweep.poll() is not None:
            raise SystemExit(f"the sweep ended before it was killed:\n{(folder / 'said.txt').read_text()[-2000:]}")
        jobs = children(sweep.pid)
        if len(kills) == 2:
            sweep.kill()
            kills.append("launcher")
        elif jobs:
            os.kill(generator.choice(jobs), signal.SIGKILL)
            kills.append("job")
    sweep.wait()
    print("killed:", ", ".join(kills), flush=True)
    if start(folder, *arguments).wait():
        raise SystemExit(f"the sweep did not end well:\n{(folder / 'said.txt').read_text()[-3000:]}")
    return kills


def main() -> None:
    """Undisturbed, disturbed; compare."""
    generator = random.Random(int(os.environ.get("XAI_SOAK_SEED", 0)))
    launcher = sys.argv[1:] or ["launcher=processes", "hydra.launcher.jobs=2"]
    with tempfile.TemporaryDirectory(prefix="xai-soak-") as temporary:
        place = Path(os.environ.get("XAI_SOAK_PLACE", temporary))
        quiet, disturbed = place / "undisturbed", place / "disturbed"
        if start(quiet, *launcher).wait():
            raise SystemExit(f"the undisturbed sweep failed:\n{(quiet / 'said.txt').read_text()[-3000:]}")
        kills = disturb(disturbed, generator, *launcher)
        before, after = products(quiet / "outputs/store"), products(disturbed / "outputs/store")
        differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        first, second = counted(quiet), counted(disturbed)
        again = [key for key, times in second["made"].items() if times != 1]
        lost = sum(second["step"].values()) - sum(first["step"].values())
        resumed = sum(second["begun"].values()) - sum(second["made"].values())
        if differing or again or results(quiet) != results(disturbed) or not results(quiet):
            raise SystemExit(f"other bytes: {differing}; made more than once: {again}")
        print(f"{len(before)} files with the same bytes and the same joint results after {len(kills)} kills")
        print(f"{len(second['made'])} artifacts, each made once; {resumed} were gone on with after a kill")
        print(f"{sum(first['step'].values())} steps of training undisturbed, {lost} more with the kills")


if __name__ == "__main__":
    sys.exit(main())
