"""Several sweeps of one command: -m sweep=A,B,C."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from xai.core.composing import choices
from xai.core.errors import UserError
from xai.core.launching import SECONDS_BETWEEN_LOOKS, SHARED_SLOTS, allow_commands, mark_of, start, stop_commands
from xai.core.settings import unknown


def run_sweeps(chosen: Mapping[str, str], config_dir: str | None, typed: Sequence[str]) -> int:
    """Run sweeps one after the other, each a command of its own; the next begins once no job of the last one waits.

    So no slot is empty while the last jobs of a sweep run. Launchers that have no `Slots` come to their end first.

    Args:
        chosen: What is typed, by key.
        config_dir: Where the user has sweeps of his own.
        typed: The same as it is typed.

    Returns:
        1 where one of them did not end well, or else 0.

    Raises:
        UserError: One of them is not there, or all would have one folder.
    """
    names = _checked(chosen, config_dir)
    of_each = [each for each in typed if not each.startswith("sweep=")]
    running: list[subprocess.Popen[bytes]] = []
    allow_commands()
    with tempfile.TemporaryDirectory(prefix="xai-slots-") as folder:
        try:
            for name in names:
                arguments = (sys.executable, os.path.abspath(sys.argv[0]), *of_each, f"sweep={name}")
                running.append(process := start(arguments, Path.cwd(), {SHARED_SLOTS: folder}))
                while process.poll() is None and not mark_of(Path(folder), process.pid).exists():
                    time.sleep(SECONDS_BETWEEN_LOOKS)
            return int(any([process.wait() for process in running]))
        finally:
            stop_commands()


def _checked(chosen: Mapping[str, str], config_dir: str | None) -> list[str]:
    names = chosen["sweep"].split(",")
    own = Path(config_dir, "sweep").glob("*.yaml") if config_dir else ()
    known = {*choices("sweep"), *(file.stem for file in own)}
    for name in names:
        if name not in known and "hydra.searchpath" not in chosen:
            raise UserError(unknown(f"sweep={name}", name, known, "sweep"))
    if "name" in chosen:
        raise UserError(f"name={chosen['name']} would be the folder of all: leave it out, each sweep has its own")
    return names
