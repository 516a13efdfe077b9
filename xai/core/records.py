"""What is known of a job of a sweep, while it runs and after: whether it runs, how far it is, how it ended.

Beside the folders of a sweep's runs lies the folder `jobs`: for each run a lock (`xai.core.locks`), which its job holds
as long as it lives, a record as JSON, and what the job printed, where a launcher caught that.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from xai.core import locks, progress
from xai.core.errors import UserError, visible
from xai.core.files import explain_disk_errors, read_text, write_atomically

FOLDER = "jobs"
"""Beside the folders of the runs."""
QUEUED = ".slurm"
"""The end of the name of the file there with a job's id in SLURM's queue."""
_SECONDS_BETWEEN_WRITES = 5.0
_TRIES = 4


@dataclass(frozen=True)
class Record:
    """What a job says of itself.

    Args:
        state: `running`, `done` or `failed`; a job that says it is running and holds no lock has been killed.
        started: Seconds since 1970.
        seconds: It has taken, so far or in all.
        doing: What it is at, or last was.
        done: Units of that which are done.
        total: Of so many.
        error: Why it failed, a line.
    """

    state: str
    started: float
    seconds: float = 0.0
    doing: str = ""
    done: int = 0
    total: int = 0
    error: str = ""


def path_of(run: Path, suffix: str) -> Path:
    """The file `jobs/<run><suffix>` beside the folder of a run."""
    return run.parent / FOLDER / f"{run.name}{suffix}"


def is_of_sweep(run: Path) -> bool:
    """Whether a run has its folder in that of a sweep, as a job of it that is typed alone."""
    return path_of(run.parent / "sweep", ".json").is_file()


@contextmanager
def recorded(run: Path) -> Iterator[None]:
    """Hold the lock of a run and keep its record while the body does its work; what that raises passes.

    Where another process does the same run at this moment, the record is its own.
    """
    path = path_of(run, ".json")
    with explain_disk_errors(path.parent, "choose another folder with name=..."):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Who looks whether it is held holds it for a moment.
        hold = next(filter(None, (_taken(run) for _ in range(_TRIES))), None)
    if hold is None:
        yield
        return
    writer = _Writer(path)
    try:
        with progress.told_to(writer.tell):
            yield
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        writer.end("failed", f"{kind}{' '.join(str(error).split())}")
        raise
    else:
        writer.end("done")
    finally:
        locks.release(hold)


def _taken(run: Path) -> int | None:
    hold = locks.acquire(path_of(run, ".lock"))
    if hold is None:
        time.sleep(0.05)
    return hold


class _Writer:
    def __init__(self, path: Path) -> None:
        self._path, self._started, self._written = path, time.time(), 0.0
        self._begun = time.monotonic()  # the time of day may be set meanwhile
        self._last = Record("running", self._started)
        self._write(self._last)

    def tell(self, doing: str, done: int, total: int) -> None:
        """How far it is; written now and then."""
        self._last = Record("running", self._started, self._seconds(), doing, done, total)
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_WRITES:
            self._write(self._last)

    def end(self, state: str, error: str = "") -> None:
        """How it ended."""
        ended = asdict(self._last) | {"state": state, "seconds": self._seconds(), "error": error}
        self._write(Record(**ended))

    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _write(self, record: Record) -> None:
        self._written = time.monotonic()
        _write(self._path, record)


def record_end(run: Path, before: Record | None, status: int) -> None:
    """Say of a job that has failed how it ended, where it could not say so itself.

    Args:
        run: Its folder.
        before: What was recorded before it began: of an earlier one, as long as it is all there is.
        status: Its exit status; negative for the signal that has killed it.
    """
    if status and read_record(run) == before:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        said = Record("failed", time.time(), error=f"it {how} before it began to work")
        _write(path_of(run, ".json"), said)


def _write(path: Path, record: Record) -> None:
    # It is for those who look on: a full disk ends no job by it, nor hides why one has failed.
    with suppress(OSError):
        write_atomically(path, (json.dumps(asdict(record)) + "\n").encode())


def read_record(run: Path) -> Record | None:
    """The record of a run; None where there is none that can be read."""
    try:
        found = Record(**json.loads(read_text(path_of(run, ".json"))))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return Record(**asdict(found) | {"error": visible(found.error), "doing": visible(found.doing)})
