"""What a command imports before it knows what it has to do: whoever only looks, or has mistyped, waits for nothing."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.shared import Cli

HEAVY = ("torch", "pytorch_lightning", "timm", "torchvision", "torchmetrics", "open_clip", "pandas", "matplotlib")
RUN = """
import json, sys
from xai.cli import main
for typed in json.loads(sys.argv.pop()):
    sys.argv[1:] = typed.split()
    status = main()
    print("!", json.dumps([status, [name for name in %r if name in sys.modules]]))
"""


def imported(commands: Sequence[str], folder: Path) -> list[tuple[int, set[str]]]:
    """The status of each command and what heavy has been imported after it, one after the other in one process."""
    ours = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", RUN % (HEAVY,), json.dumps(list(commands))]
    done = subprocess.run(command, cwd=folder, env=ours, capture_output=True, text=True, check=False)
    told = [json.loads(line[2:]) for line in done.stdout.splitlines() if line.startswith("! ")]
    assert len(told) == len(commands), done.stderr
    return [(status, set(names)) for status, names in told]


LOOK = {
    **{"experiment=smokee": 2, "seed=one": 2, "task=status name=none": 2, "--help data": 0, "task=data": 0},
    **{"task=report name=none": 2, "task=site outputs=none": 2},
}
COMMON = ("seed=one", "task=train trainer.workers=-1", "study=salvage store=[1]", "foo=1")
"""What every job has is checked before it is known what else settings may be."""
WRONG = (
    *("task=compare explainers.rise.masks=-1", "data.canvas=-3", "task=compare explainers.rise.maskss=9"),
    *("study=salvage classifier.focus=x", "task=train classifier.fit.epochs=0", "-m seed=0,1 transfer.alpha=2"),
    *("task=compare metric.removal.masks=-1", "study=ranking metrics=[1]"),
)


@pytest.mark.slow
def test_what_a_command_imports_before_it_works(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "outputs").mkdir()
    *common, site = imported([*COMMON, "task=site"], tmp_path)
    assert common == [(2, set())] * len(COMMON)
    assert site[0] == 2
    assert site[1] <= {"torch", "pandas", "matplotlib"}  # what was measured, and nothing that trains
    assert run(*WRONG[0].split())[0] == 2
    # Since then it is known what settings may be.
    expected = [*((status, set()) for status in LOOK.values()), *((2, set()) for _ in WRONG)]
    assert imported([*LOOK, *WRONG], tmp_path) == expected


ROOT = Path(__file__).resolve().parents[2]

INTERRUPTED = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "xai.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
from {module} import {name}
{name}()
"""


def test_ctrl_c_before_the_command_line_is_there_ends_it_in_silence() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        module, _, name = tomllib.load(file)["project"]["scripts"]["xai"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    script = INTERRUPTED.format(module=module, name=name)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
