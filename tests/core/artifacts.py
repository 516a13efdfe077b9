"""What the tests of the store share: an artifact, what harms it, and processes that ask for it, or are waited for."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.toolbox import there
from xai.core import entries
from xai.core.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = {"data": "digits", "seed": 3, "alpha": 0.5, "upstream": ["abc", "def"]}
WEIGHTS = bytes(range(256)) * 40


def make_files(workdir: Path) -> None:
    (workdir / "weights.bin").write_bytes(WEIGHTS)
    (workdir / "extra").mkdir(exist_ok=True)
    (workdir / "extra" / "log.txt").write_text("done")


def refuse(workdir: Path) -> None:
    raise AssertionError(f"{workdir} must not be made again")


def forget_checks() -> None:
    """What a new process knows about the store: nothing."""
    entries.verified.clear()


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def share(store: Store) -> Path:
    """The scratch folder of the artifact that `SPEC` asks for."""
    return there(store.scratch("classifier", SPEC))


def flip_a_byte(path: Path) -> None:
    content = bytearray((path / "weights.bin").read_bytes())
    content[1234] ^= 1
    (path / "weights.bin").write_bytes(content)


def fail_with(number: int, filename: str | None = None) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), filename)

    return fail


def wait_for(reached: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.005)


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
