"""A job of a sweep as a command of its own, which a launcher starts anywhere and whose end it hears; slots for jobs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai.core import locks
from xai.core.records import path_of, read_record, record_end

_LAUNCHED = "XAI_LAUNCHED"
_SECONDS_TO_END = 30.0
SHARED_SLOTS = "XAI_SLOTS"
"""In the environment of a sweep: the folder with a lock for each slot, where others have the same slots."""
SECONDS_BETWEEN_LOOKS = 0.1
"""Whether a slot is free."""
FOLDERS: dict[tuple[str, ...], Path] = {}
"""Of the jobs of a sweep by what is typed for them alone, where they are known: composing one takes its time."""
_running: list[subprocess.Popen[bytes]] = []
_lock = threading.Lock()
_is_stopped = threading.Event()
"""Set when commands are stopped: none is begun after that, until `allow_commands`."""


class _StoppedError(Exception):
    pass


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


def run_command(command: Command, warm: "Warm | None" = None) -> int:
    """Run a command to its end, its output in `jobs/<run>.log`; returns its exit status, the signal as a negative one.

    However this process ends, the command ends with it: it reads from a pipe that nobody writes to.

    Args:
        command: What to run.
        warm: What becomes the command, where it can; otherwise a process of its own runs it.
    """
    log = path_of(command.place / command.run, ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    before = read_record(command.place / command.run)
    try:
        status = warm.run(command, log) if warm is not None else None
        if status is None:
            with open(log, "ab") as file:
                process = start(command.arguments, command.place, command.environment, file, file)
                try:
                    status = process.wait()
                finally:
                    _stop(process)
    except _StoppedError:
        return -signal.SIGTERM
    record_end(command.place / command.run, before, status)
    return status


class Warm:
    """A process (`xai.warm`) that becomes one command after the other, so that what they import is imported once.

    The commands have the place and the environment of the first.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_able = True

    def run(self, command: Command, log: Path) -> int | None:
        """Its exit status, or None: nothing was begun, because it runs no script or the process does not start."""
        script, *_ = typed = command.arguments[1:]
        if not self._is_able or command.arguments[0] != sys.executable or not (command.place / script).is_file():
            return None
        if self._process is None:
            asked = (sys.executable, "-P", "-m", "xai.warm")
            given = (asked, command.place, command.environment)
            self._process = start(*given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        told, said = self._process.stdin, self._process.stdout
        assert told is not None
        assert said is not None
        with suppress(BrokenPipeError):
            told.write(json.dumps({"arguments": typed, "log": str(log.absolute())}).encode() + b"\n")
            told.flush()
        self._is_able = said.readline() == b"begun\n"
        if status := said.readline():
            return int(status)
        process, self._process = self._process, None  # it is dead
        _stop(process)
        return process.returncode if self._is_able else None


def start(
    arguments: Sequence[str], place: Path, environment: Mapping[str, str], stdout: Any = None, stderr: Any = None
) -> "subprocess.Popen[bytes]":
    """Start what ends when this process does."""
    given = {**os.environ, **environment, _LAUNCHED: "1"}
    with _lock:
        check_not_stopped()
        process = subprocess.Popen(arguments, cwd=place, env=given, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr)
        _running.append(process)
    return process


def check_not_stopped() -> None:
    """Raise what `run_command` takes for the end of a command, once `stop_commands` was called."""
    if _is_stopped.is_set():
        raise _StoppedError


def allow_commands() -> None:
    """Let commands begin again, after others of this process were stopped."""
    _is_stopped.clear()


def stop_commands() -> None:
    """End all commands of this process, in good order where they can; no other begins."""
    with _lock:
        _is_stopped.set()
    for process in list(_running):
        process.terminate()
    for process in list(_running):
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
    assert process.stdin is not None
    with suppress(OSError):  # what it may have become ends by that
        process.stdin.close()
    with suppress(ValueError):  # another thread has done so
        _running.remove(process)


class Slots:
    """Slots of a machine, in each of which one job runs at a time; whoever dies gives back what he holds.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        shared = os.environ.get(SHARED_SLOTS)
        self._own = None if shared else tempfile.TemporaryDirectory(prefix="xai-slots-")
        self._folder, self._count = Path(shared or self._own.name), count  # type: ignore[union-attr]

    @contextmanager
    def one(self) -> Iterator[int]:
        """The number of a slot that is free, once one is; it is taken while the body runs."""
        while (taken := self._free()) is None:
            check_not_stopped()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        number, lock = taken
        try:
            yield number
        finally:
            locks.release(lock)

    def all_begun(self) -> None:
        """Say that no job of this sweep waits for a slot any more."""
        mark_of(self._folder, os.getpid()).touch()

    def _free(self) -> tuple[int, int] | None:
        self._folder.mkdir(parents=True, exist_ok=True)  # somebody may tidy up what is temporary
        for number in range(self._count):
            if (lock := locks.acquire(self._folder / f"{number}.lock")) is not None:
                return number, lock
        return None


def mark_of(folder: Path, process: int) -> Path:
    """A file that is there once all jobs of the sweep of a process have begun."""
    return folder / f"{process}.begun"


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
