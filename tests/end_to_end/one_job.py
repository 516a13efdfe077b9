"""What a job of `tests.end_to_end.jobs` does: become a group of its own, go to its folder, and be `run.py`."""

import multiprocessing
import os
import runpy
import sys

RUN, FOLDER, ARGUMENTS, OUT, ERR, START_METHOD = globals()["JOB"]

# What a process that was started by hand would have; a fork server's children start theirs by fork servers.
multiprocessing.set_start_method(START_METHOD, force=True)
os.setsid()
os.chdir(FOLDER)
for path, descriptor in ((OUT, 1), (ERR, 2)):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, descriptor)
    os.close(file)
sys.argv = [RUN, *ARGUMENTS]
runpy.run_path(RUN, run_name="__main__")
