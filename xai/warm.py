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
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np

from xai.tasks.registry import TASKS

_FOR_JOBS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a terminal or a cluster sends to all, and that are for the job, or the launcher."""


def main() -> None:
    """Run the jobs that are asked for, one after the other."""
    heard = {each: signal.signal(each, signal.SIG_IGN) for each in _FOR_JOBS}
    for module in ("xai.cli", "xai.app", *TASKS.values()):
        import_module(module)
    stopped: list[int] = []
    while not stopped and (asked := sys.stdin.readline()):
        job = json.loads(asked)
        child = os.fork()
        if not child:
            for number, handler in heard.items():
                signal.signal(number, handler)
            return _run(job["arguments"], job["log"])

        def stop(number: int, _: Any, child: int = child) -> None:
            stopped.append(number)
            with suppress(ProcessLookupError):
                os.kill(child, number)

        signal.signal(signal.SIGTERM, stop)
        print("begun", flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)
        if not stopped:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return None


def _run(arguments: list[str], log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    # Numbers of its own, where the state of this process would give all jobs the same.
    random.seed()
    np.random.seed()
    sys.argv = arguments
    sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
