"""What a command imports before it knows what it has to do: whoever only looks, or has mistyped, waits for nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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


def test_who_only_looks_waits_for_nothing_that_computes(tmp_path: Path) -> None:
    light = {
        "experiment=smokee": 2, "sead=1": 2, "seed=one": 2, "task=status name=none": 2, "--help data": 0, "task=data": 0
    }  # fmt: skip
    assert imported(list(light), tmp_path) == [(status, set()) for status in light.values()]


def test_who_reads_what_was_measured_waits_for_nothing_that_trains(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    for status, found in imported(["task=site", "task=report name=none"], tmp_path):
        assert status == 2
        assert found <= {"torch", "pandas", "matplotlib"}
