"""A job of a sweep as a command of its own, which a launcher starts anywhere and whose end it hears."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xai.core.records import path_of, read_record, record_end

_LAUNCHED = "XAI_LAUNCHED"
_SECONDS_TO_END = 30.0
FOLDERS: dict[tuple[str, ...], Path] = {}
"""Of the jobs of a sweep by what is typed for them alone, where they are known: composing one takes its time."""
_running: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Command:
    """A command of a launcher, in its place and with what is added to the environment.

    `run` is the folder of the run, below which name its output is kept.
    """

    arguments: tuple[str, ...]
    run: Path
    place: Path
    environment: Mapping[str, str]


def threads(count: int) -> dict[str, str]:
    """The environment in which libraries take so many threads."""
    return {name: str(count) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def cores() -> int:
    """How many cores of the machine this process may use."""
    # Only Linux tells which.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cores() -> int:
    """How many of them are its own, where a launcher or the user has divided them as `threads` does."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores(), int(given)) if given.isdecimal() and int(given) else cores()


def run_command(command: Command) -> int:
    """Run a command to its end, its output in `jobs/<run>.log`; returns its exit status, the signal as a negative one.

    However this process ends, the command ends with it: it reads from a pipe that nobody writes to.
    """
    log = path_of(command.place / command.run, ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    before = read_record(command.place / command.run)
    environment = {**os.environ, **command.environment, _LAUNCHED: "1"}
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command.arguments, cwd=command.place, env=environment, stdin=subprocess.PIPE, stdout=file, stderr=file
        )
        _running.append(process)
        try:
            status = process.wait()
        except BaseException:
            _stop(process)
            raise
        finally:
            _running.remove(process)
    record_end(command.place / command.run, before, status)
    return status


def stop_commands() -> None:
    """End all commands of this process, in good order where they can."""
    for process in list(_running):
        process.terminate()
    for process in list(_running):
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_END)
    process.kill()


def in_queue() -> set[str] | None:
    """Ids of this user's jobs that SLURM has in its queue, waiting or at work; None where it does not answer."""
    asked = ("squeue", "--me", "--noheader", "--array", "--format=%i")
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=_SECONDS_TO_END, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if told.returncode else set(told.stdout.split())


def is_launched() -> bool:
    """Whether this process is a command of a launcher."""
    return _LAUNCHED in os.environ


def end_with_the_launcher() -> None:
    """End this process when its launcher ends, however that does; it hears of no signals that are for the launcher."""
    pipe = os.dup(sys.stdin.fileno())
    for each in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(each, signal.SIG_IGN)

    def wait() -> None:
        os.read(pipe, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
