"""Launchers of Hydra's: the jobs of a sweep as commands, in processes of this machine, under Ray or under SLURM.

Each job is what a user would type for it alone, and what it says goes to `outputs/<sweep>/jobs/<run>.log`. A job that
fails, or is killed, stops no other.
"""

import itertools
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.markup import escape

from xai.core.errors import UserError
from xai.core.launching import (
    FOLDERS,
    SHARED_SLOTS,
    Command,
    Slots,
    Warm,
    allow_commands,
    cores,
    in_queue,
    run_command,
    stop_commands,
    threads,
)
from xai.core.overrides import OUTPUTS, alone
from xai.core.progress import console
from xai.core.records import QUEUED, path_of, read_record, record_end

_CARRIED = re.compile("PYTHONPATH$|WANDB_|MLFLOW_")
"""Of the environment, what a job on another machine works by."""
_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_FOR_RESULTS = 30.0
"""After a job has left the queue, until its result is seen here: file systems of clusters take their time."""


class _Commands(Launcher):
    """What all of them do: overrides in, exit statuses out."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """As Hydra asks for."""
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs, as many at a time as there is room for."""
        # Python looks beside this package wherever a job is started.
        here = str(Path(__file__).resolve().parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        commands = [self._command(list(overrides)) for overrides in job_overrides]
        before = [read_record(each.place / each.run) for each in commands]
        returns = []
        for overrides, command, record, status in zip(job_overrides, commands, before, self.run(commands), strict=True):
            # A job that a cluster has lost before it began has said nothing, and what an earlier one said is not of it.
            record_end(command.place / command.run, record, status)
            returned = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
            returned.return_value = status
            returns.append(returned)
        return returns

    def run(self, commands: Sequence[Command]) -> list[int]:
        """Their exit statuses."""
        raise NotImplementedError

    def _command(self, overrides: list[str]) -> Command:
        folder = FOLDERS.get(tuple(alone(overrides, OUTPUTS)))
        if folder is None:
            job = self._context.config_loader.load_sweep_config(self._config, overrides)
            HydraConfig.instance().set_config(job)
            folder = Path(str(job.hydra.sweep.dir)) / str(job.hydra.sweep.subdir)
        sources = self._config.hydra.runtime.config_sources
        places = [f"--config-dir={each.path}" for each in sources if each.provider == "command-line"]
        typed = (sys.executable, os.path.abspath(sys.argv[0]), *places, *alone(overrides, folder))
        return Command(typed, folder, Path.cwd(), {})


def _ended(command: Command, status: int) -> int:
    said = "[green]done[/]" if status == 0 else f"[red]ended with status {status}[/]"
    console.print(f"  {escape(command.run.name)}: {said}", highlight=False, soft_wrap=True)
    return status


def _result(end: Future[int]) -> int:
    """How a job ended. A stop that comes just as Python falls asleep is heard when it wakes: so it wakes often."""
    while not end.done():
        wait([end], timeout=0.2)
    return end.result()


class Processes(_Commands):
    """Processes of this machine.

    Args:
        jobs: At a time; None is as many as there are GPUs for, or one for two cores.
        gpus: Of each job.
    """

    def __init__(self, jobs: int | None = None, gpus: int = 0) -> None:
        for name, value, least in (("jobs", 1 if jobs is None else jobs, 1), ("gpus", gpus, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"hydra.launcher.{name}={value} must be a whole number of at least {least}")
        self._jobs, self._gpus = jobs, gpus

    def run(self, commands: Sequence[Command]) -> list[int]:
        """Each in a slot, which has cores and GPUs of its own."""
        found = self._slots(len(commands))
        # A process that is to be forked must not have used a GPU; only Linux forks one that has imported all sorts.
        is_warm = not self._gpus and sys.platform == "linux" and len(commands) > len(found)
        warm = [Warm() if is_warm else None for _ in found]
        slots, begun = Slots(len(found)), itertools.count(1)

        def run_one(command: Command) -> int:
            with slots.one() as number:
                if next(begun) == len(commands):
                    slots.all_begun()
                return _ended(command, run_command(replace(command, environment=found[number]), warm[number]))

        allow_commands()
        if commands:
            several = f"{len(commands)} job{'s' * (len(commands) > 1)}, {min(len(found), len(commands))} at a time"
            where = path_of(commands[0].run, "").parent
            console.print(f"  {several}; what they say: {escape(str(where))}", highlight=False, soft_wrap=True)
        with ThreadPoolExecutor(len(found)) as pool:
            try:
                ends = [pool.submit(run_one, command) for command in commands]
                return [_result(end) for end in ends]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            finally:
                stop_commands()  # also those that wait for another job

    def _slots(self, most: int) -> list[dict[str, str]]:
        devices = _visible_gpus() if self._gpus else []
        jobs = self._jobs or (len(devices) // self._gpus if self._gpus else max(1, cores() // 2))
        if self._gpus * jobs > len(devices) or not jobs:
            raise UserError(
                f"{jobs or 1} jobs with {self._gpus} GPU(s) each need more than the {len(devices)} that are visible: "
                "lower hydra.launcher.jobs or hydra.launcher.gpus, or use launcher=processes"
            )
        if SHARED_SLOTS not in os.environ:  # other sweeps have jobs for the slots that this one leaves
            jobs = min(jobs, most)
        shared = threads(max(1, cores() // jobs))
        mine = [devices[self._gpus * slot : self._gpus * (slot + 1)] for slot in range(jobs)]
        return [{**shared, "CUDA_VISIBLE_DEVICES": ",".join(each)} for each in mine]


def _visible_gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [str(number) for number in range(torch.cuda.device_count())]
    return named.split(",")[: len(found)] if named else found


class Ray(_Commands):
    """Tasks of Ray, which starts a task anew whose machine is lost.

    Args:
        num_gpus: Of each job.
        num_cpus: Of each job.
        address: Of a cluster; None starts a Ray of its own on this machine.
        cores: Of that; None takes all.
    """

    def __init__(self, num_gpus: float, num_cpus: float, address: str | None = None, cores: int | None = None) -> None:
        self._gpus, self._cpus, self._address, self._cores = num_gpus, num_cpus, address, cores

    def run(self, commands: Sequence[Command]) -> list[int]:
        """Each a task."""
        try:
            import ray
        except ImportError:
            raise UserError("launcher=ray needs Ray: pip install -e '.[ray]'") from None
        # Ray hides the GPUs from tasks that ask for none in some versions only.
        hidden = {} if self._gpus else {"CUDA_VISIBLE_DEVICES": ""}
        # The workers of a cluster have the environment of who started that.
        carried = {key: value for key, value in os.environ.items() if _CARRIED.match(key)}
        given = {**carried, **threads(max(1, int(self._cpus))), **hidden}
        own: dict[str, Any] = {} if self._address else {"num_cpus": self._cores, "include_dashboard": False}
        ray.init(address=self._address or "local", log_to_driver=False, **own)
        try:
            task = ray.remote(num_gpus=self._gpus, num_cpus=self._cpus)(run_command)
            waiting = {task.remote(replace(command, environment=given)): command for command in commands}
            statuses = {}
            left = list(waiting)
            while left:
                (ready,), left = ray.wait(left, num_returns=1)
                try:
                    status = int(ray.get(ready))
                except Exception as lost:
                    console.print(f"  {waiting[ready].run.name}: {str(lost).splitlines()[0]}", markup=False)
                    status = 1
                statuses[waiting[ready].run] = _ended(waiting[ready], status)
            return [statuses[command.run] for command in commands]
        finally:
            ray.shutdown()


class Slurm(_Commands):
    """An array of SLURM, by submitit.

    Args:
        cluster: `slurm`, or `local` for processes of this machine.
        requeues: How often a job goes on that has come to the end of its time, or was preempted.
        parameters: Of submitit; those it does not know itself are sbatch's.
    """

    def __init__(self, cluster: str, requeues: int, **parameters: Any) -> None:
        self._cluster, self._requeues = cluster, requeues
        self._parameters = parameters

    def run(self, commands: Sequence[Command]) -> list[int]:
        """Each a job of the array."""
        try:
            import submitit
        except ImportError:
            raise UserError("launcher=slurm needs submitit: pip install -e '.[slurm]'") from None
        folder = commands[0].place / commands[0].run.parent / "jobs" / "submitit"
        try:
            executor = submitit.AutoExecutor(folder, cluster=self._cluster, slurm_max_num_timeout=self._requeues)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"launcher=slurm cannot submit ({error}): start it where sbatch works") from error
        own = ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb")
        said = {key: value for key, value in self._parameters.items() if value is not None}
        given = {key if key in own else f"slurm_{key}": value for key, value in said.items()}
        executor.update_parameters(name=commands[0].run.parent.name, **given)
        shared = threads(self._parameters.get("cpus_per_task") or 1)
        with _programs_say(folder / "slurm.log"):
            try:
                with executor.batch():
                    jobs = [executor.submit(_Attempt(replace(command, environment=shared))) for command in commands]
            except (submitit.core.utils.FailedJobError, OSError) as error:
                why = str(error).strip().splitlines()[-1]
                raise UserError(f"launcher=slurm cannot submit ({why}): start it where sbatch works") from error
            for command, job in zip(commands, jobs, strict=True):
                path_of(command.place / command.run, QUEUED).write_text(f"{job.job_id}\n", encoding="utf-8")
            console.print(f"  jobs {jobs[0].job_id} to {jobs[-1].job_id}; what they say: {folder}", soft_wrap=True)
            wait = _wait_in_queue if self._cluster == "slurm" else _wait
            return [_ended(command, wait(job)) for command, job in zip(commands, jobs, strict=True)]


@contextmanager
def _programs_say(log: Path) -> Iterator[None]:
    """Send to a file what sbatch, sacct and submitit say of every look, without accounting the same for hours."""
    log.parent.mkdir(parents=True, exist_ok=True)
    told = logging.getLogger("submitit")
    level, before = told.level, os.dup(2)
    told.setLevel(logging.ERROR)
    with open(log, "a", encoding="utf-8") as file, redirect_stderr(file):
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            told.setLevel(level)


def _wait_in_queue(job: Any) -> int:
    """Wait for a job of SLURM, which without accounting says of none that it was cancelled, or its node lost."""
    is_out = False
    while not job.done():
        if is_out:
            console.print(f"  {job.job_id}: SLURM has it no more, and it left no result", soft_wrap=True)
            return 1
        known = in_queue()
        is_out = known is not None and str(job.job_id) not in known
        time.sleep(_SECONDS_FOR_RESULTS if is_out else _SECONDS_BETWEEN_LOOKS)
    return _wait(job)


def _wait(job: Any) -> int:
    lost = job.exception()
    if lost is not None:
        console.print(f"  {job.job_id}: {str(lost).splitlines()[0]}", markup=False, soft_wrap=True)
    return int(job.result()) if lost is None else 1


class _Attempt:
    """A command that submitit puts into the queue again, as it is: what it has made is in the store."""

    def __init__(self, command: Command) -> None:
        self._command = command

    def __call__(self) -> int:
        return run_command(self._command)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
