"""The console script before there is anything to stop."""

import importlib
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

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
