"""Real jobs for the tests: `run.py` in a process group of its own that can be killed.

The processes are forked from a server that has imported everything, because the imports take longer than the jobs.
"""

import multiprocessing
import os
import re
import runpy
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0
_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Ended:
    """A job that has ended."""

    status: int | None
    out: str
    err: str

    @property
    def made(self) -> int:
        """How many artifacts it says it made."""
        found = re.search(r"store: (\d+) re-used, (\d+) made", self.out)
        assert found, self.out
        return int(found[2])


@dataclass(frozen=True)
class Job:
    """A job that runs."""

    process: ForkServerProcess
    out: Path
    err: Path

    def wait(self) -> Ended:
        """Wait for its end."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.kill()
        return Ended(self.process.exitcode, self.out.read_text(), self.err.read_text())

    def kill(self) -> None:
        """`kill -9` to the job and all it has started."""
        os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join(PATIENCE)

    def kill_when(self, reached: Callable[[], bool]) -> bool:
        """Kill it at a moment at which `reached` holds; False where it ended before that was seen."""
        group, deadline = self.process.pid or 0, time.monotonic() + PATIENCE
        while self.process.is_alive() and time.monotonic() < deadline:
            if reached():
                # Stopped first, so that what was seen cannot be over by the time of the kill.
                os.killpg(group, signal.SIGSTOP)
                time.sleep(0.01)
                if reached():
                    self.kill()
                    return True
                os.killpg(group, signal.SIGCONT)
            time.sleep(0.0005)
        return False


def start(folder: Path, *arguments: str, out: Path | None = None, path: Path | None = None) -> Job:
    """Start `run.py` with these arguments in a folder, without a logger; what it says goes there, or to `out`.

    In `path` are modules of a user's own; of what the tests have registered the job knows nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("job-*.out")))
    out, err = out or folder / f"job-{number}.out", folder / f"job-{number}.err"
    out.touch(), err.touch()
    job = (
        str(ROOT / "run.py"),
        str(folder),
        [*arguments, "logger=none"],
        str(out),
        str(err),
        multiprocessing.get_start_method(),
        [str(path)] if path else [],
    )
    script = str(Path(__file__).with_name("one_job.py"))
    with _server() as context:
        process = context.Process(target=runpy.run_path, args=(script, {"JOB": job}))
        process.start()
    return Job(process, out, err)


@contextmanager
def _server() -> Iterator[ForkServerContext]:
    """What starts processes as forks of the server."""
    _CONTEXT.set_forkserver_preload(["xai.app", "xai.tasks.study", "xai.tasks.supervise", "sklearn.datasets"])
    with pytest.MonkeyPatch.context() as patch:
        # The server starts with the first process and takes its path from here.
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        yield _CONTEXT


@contextmanager
def forked_groups() -> Iterator[None]:
    """The processes that `run_group` spawns are forked from the server meanwhile: what they do is the same."""
    with _server() as context, pytest.MonkeyPatch.context() as patch:
        patch.setattr("xai.core.processes.get_context", lambda _: context)
        yield


def run(folder: Path, *arguments: str, path: Path | None = None) -> Ended:
    """Run a job to its end; it must succeed."""
    ended = start(folder, *arguments, path=path).wait()
    assert ended.status == 0, ended.err + ended.out
    return ended
