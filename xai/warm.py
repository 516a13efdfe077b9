"""A process that has imported what takes seconds, and becomes each job of a sweep by a fork: `python -m xai.warm`.

It reads a job a line, as JSON with `arguments` (a script and what is typed for it) and `log` (where its output goes);
it says `begun` when there is a process for it, and its exit status when that is over. What a job has from here are
modules that nothing has used yet; all else it does as it would alone.
"""

import json
import os
import random
import runpy
import signal
import sys
import tempfile
import time
import weakref
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np

from xai.core import progress
from xai.tasks import early
from xai.tasks.registry import TASKS

_FOR_JOBS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a terminal or a cluster sends to all, and that are for the job, or the launcher."""


def main() -> None:
    """Run the jobs that are asked for, one after the other."""
    heard = {each: signal.signal(each, signal.SIG_IGN) for each in _FOR_JOBS}
    child, is_stopped = 0, False

    def stop(number: int, _: Any) -> None:
        nonlocal is_stopped
        if not child:
            sys.exit(128 + number)
        if not is_stopped:  # a second one would come into what it does at its end
            is_stopped = True
            with suppress(ProcessLookupError):
                os.kill(child, number)

    heard[signal.SIGTERM] = signal.signal(signal.SIGTERM, stop)
    with suppress(OSError):
        early.sources()  # of what is imported now; jobs find this answer
    for module in ("xai.cli", "xai.app", *TASKS.values()):
        import_module(module)
    while not is_stopped and (asked := sys.stdin.readline()):
        job = json.loads(asked)
        child = os.fork()
        if not child:
            for number, handler in heard.items():
                signal.signal(number, handler)
            return _run(job["arguments"], job["log"])
        print("begun", flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        child = 0
        print(status, flush=True)
    return None


def _run(arguments: list[str], log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    # Folders that libraries make when they are imported go with the process: those here are not this job's.
    for folder in [each.weakref() for each in getattr(weakref.finalize, "_registry", {}).values()]:
        if isinstance(folder, tempfile.TemporaryDirectory):
            folder._finalizer.detach()  # type: ignore[attr-defined]
            tempfile.TemporaryDirectory.__init__(folder)
    # Numbers of its own, where the state of this process would give all jobs the same.
    random.seed()
    np.random.seed()
    progress.STARTED = time.perf_counter()
    sys.argv, sys.orig_argv = arguments, [sys.executable, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
