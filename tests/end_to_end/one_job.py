"""What a job of `tests.end_to_end.jobs` does: become a group of its own, go to its folder, and be `run.py`."""

import multiprocessing
import os
import runpy
import signal
import sys

RUN, FOLDER, ARGUMENTS, OUT, ERR, START_METHOD, PATH = globals()["JOB"]

# What a process that was started by hand would have; a fork server's children start theirs by fork servers.
multiprocessing.set_start_method(START_METHOD, force=True)
# Ignored where the tests were started in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.setsid()
os.chdir(FOLDER)
for path, descriptor, name in ((OUT, 1, "stdout"), (ERR, 2, "stderr")):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, descriptor)
    os.close(file)
    # The server's own stream takes this for the kind of file that it had.
    setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115
sys.path[:0] = PATH
sys.argv = [RUN, *ARGUMENTS]
runpy.run_path(RUN, run_name="__main__")
