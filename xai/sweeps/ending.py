"""The beginning and the end of -m: which jobs there are, how each has ended, and what they come to together.

Several sweeps of one command, -m sweep=A,B,C, are a command each.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from xai.core import launching, locks
from xai.core.common import Sweep
from xai.core.composing import CONF, choices, searchpath
from xai.core.errors import UserError
from xai.core.files import write_atomically
from xai.core.overrides import OUTPUTS, alone
from xai.core.progress import console, print_table
from xai.core.records import path_of
from xai.core.settings import build, unknown
from xai.sweeps.jobs import Job, folder_of, jobs_of, seen_by, without_hydra, write_plan
from xai.sweeps.status import look, table_of

Check = Callable[[Sequence[str], DictConfig], None]


@contextmanager
def started(settings: Sequence[str], config_name: str, typed: str, check: Check | None) -> Iterator[list[Job]]:
    """Find out which jobs there are and check each; while the body runs, others can see that the sweep does.

    Args:
        settings: What was typed.
        config_name: Of the whole configuration.
        typed: The command.
        check: Refuses the settings of a job, while `HydraConfig` is its own. None: nobody knows the jobs.
    """
    jobs = [] if check is None else _checked(settings, config_name, check)
    if not jobs:
        yield jobs
        return
    folder = folder_of(jobs)
    before, begun = _said_in(folder), _begun(jobs)
    write_plan(folder, jobs, typed)
    # Composed and checked they are: neither Hydra nor the launcher need do so once more.
    BasicSweeper.validate_batch_is_legal = lambda *_: None  # type: ignore[method-assign]
    launching.FOLDERS.update({tuple(alone(job.overrides, OUTPUTS)): job.folder for job in jobs})
    hold = locks.acquire(path_of(folder / "sweep", ".lock"))
    try:
        yield jobs
    except (UserError, HydraException):
        if hold is not None and _begun(jobs) == begun:
            _take_back(folder, before)
        raise
    finally:
        if hold is not None:
            locks.release(hold)


def _said_in(folder: Path) -> dict[Path, bytes | None]:
    """What a sweep says of itself in its folder, before any of its jobs has begun; None where it says nothing."""
    files = (folder / "multirun.yaml", path_of(folder / "sweep", ".json"), path_of(folder / "sweep", ".lock"))
    return {path: path.read_bytes() if path.is_file() else None for path in files}


def _begun(jobs: Sequence[Job]) -> set[Path]:
    """What there is of the jobs."""
    kinds = [(job.folder, *(path_of(job.folder, suffix) for suffix in (".json", ".log"))) for job in jobs]
    return {path for paths in kinds for path in paths if path.exists()}


def _take_back(folder: Path, before: Mapping[Path, bytes | None]) -> None:
    """Leave the folder of a sweep that its launcher has refused as it was."""
    for path, said in before.items():
        if said is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, said)
    submitted = path_of(folder / "sweep", "").with_name("submitit")
    if before[path_of(folder / "sweep", ".json")] is None and submitted.is_dir() and not submitted.is_symlink():
        shutil.rmtree(submitted)
    with suppress(OSError):  # something is in it
        for each in (submitted.parent, folder, *folder.parents[:-1]):
            each.rmdir()


def _checked(settings: Sequence[str], config_name: str, check: Check) -> list[Job]:
    jobs: list[Job] = []
    asked: dict[str, Job] = {}
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            for job in jobs_of(settings, searchpath(), config_name):
                assert job.config is not None
                if job.config.task == "plan":
                    raise UserError("task=plan starts no runs, and plans all those of sweep=NAME: leave -m out")
                check(job.overrides, without_hydra(job.config))
                same = json.dumps(OmegaConf.to_container(without_hydra(job.config), resolve=True), default=str)
                if (twin := asked.setdefault(same, job)) is not job:
                    raise UserError(f"{_apart(job, twin)} come to one and the same job: leave one of them out")
                if other := next((each for each in jobs if each.folder == job.folder), None):
                    raise UserError(_one_folder(job, other, settings))
                jobs.append(job)
                if len(jobs) == 1:
                    # Here, as below: before jobs are known to be right nobody waits for what shows them.
                    from xai.report.present import check_views

                    sweep = _sweep_of(job.config)
                    check_views((*sweep.tables, *sweep.documented), sweep.claims, sweep.figures)
    finally:
        HydraConfig.instance().cfg = None
    return jobs


def _apart(job: Job, other: Job) -> str:
    """What two jobs were asked for, each alone."""
    return " and ".join(shlex.join(set(a.overrides) - set(b.overrides)) for a, b in ((job, other), (other, job)))


def _one_folder(job: Job, other: Job, settings: Sequence[str]) -> str:
    if any(each.startswith("hydra.sweep.subdir=") for each in settings):
        return f"several jobs of this sweep have the folder {job.folder}: leave hydra.sweep.subdir out"
    return (
        f"{_apart(job, other)} would have one folder, in whose name / is a -: start each by a command of its own, with "
        "a name=... of its own"
    )


def _sweep_of(config: DictConfig) -> Sweep:
    return build(Sweep, OmegaConf.to_container(config.sweep, resolve=True), "sweep")


def end(jobs: Sequence[Job], typed: str) -> int:
    """Say how the jobs ended, how to repeat those that failed, and what they come to; 1 where one failed."""
    if not jobs:
        return 0
    from xai.sweeps.report import report

    config = jobs[0].config
    assert config is not None
    sweep = _sweep_of(config)
    states = [look(job) for job in jobs]
    print_table(table_of(states))
    # What still runs is another command's: a launcher has waited for its own.
    failed = [state for state in states if state.state not in ("done", "running")]
    try:
        with seen_by(config):
            report(jobs, sweep, folder_of(jobs), typed)
    finally:
        if failed:
            console.print(
                f"\n{len(failed)} of {len(jobs)} jobs did not end well; the same command goes on, each alone by:"
            )
        for state in failed:
            why = f"    # {state.said}" * bool(state.said)
            console.print(f"  {state.job.command}{why}", markup=False, highlight=False, soft_wrap=True)
    return 1 if failed else 0


def run_sweeps(chosen: Mapping[str, str], typed: Sequence[str]) -> int:
    """Run sweeps one after the other, each a command of its own; the next begins once no job of the last one waits.

    So no slot is empty while the last jobs of a sweep run. Launchers that have no `Slots` come to their end first.

    Args:
        chosen: What is typed, by key.
        typed: The same as it is typed.

    Returns:
        1 where one of them did not end well, or else 0.

    Raises:
        UserError: One of them is not there, or all would have one folder.
    """
    names = _names(chosen)
    of_each = [each for each in typed if not each.startswith("sweep=")]
    running: list[subprocess.Popen[bytes]] = []
    launching.allow_commands()
    with tempfile.TemporaryDirectory(prefix="xai-slots-") as folder:
        try:
            for name in names:
                arguments = (sys.executable, os.path.abspath(sys.argv[0]), *of_each, f"sweep={name}")
                running.append(process := launching.start(arguments, Path.cwd(), {launching.SHARED_SLOTS: folder}))
                while process.poll() is None and not launching.mark_of(Path(folder), process.pid).exists():
                    time.sleep(launching.SECONDS_BETWEEN_LOOKS)
            return int(any([process.wait() for process in running]))
        finally:
            launching.stop_commands()


def _names(chosen: Mapping[str, str]) -> list[str]:
    names, known = chosen["sweep"].split(","), choices("sweep")
    for name in names:
        if name not in known and "hydra.searchpath" not in chosen:
            raise UserError(unknown(f"sweep={name}", name, known, "sweep"))
    if "name" in chosen:
        raise UserError(f"name={chosen['name']} would be the folder of all: leave it out, each sweep has its own")
    return names
