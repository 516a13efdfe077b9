"""Launchers: what they run, on which cores and GPUs, and what they make of a job that fails."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.plugins import Plugins

from hydra_plugins import xai_launchers
from hydra_plugins.xai_launchers import Processes, Ray, Slurm
from tests.core.artifacts import wait_for
from tests.sweeps.conftest import Sweeping
from xai.core.errors import UserError
from xai.core.launching import Command, cores, own_cores
from xai.core.records import recorded
from xai.sweeps.jobs import Job
from xai.sweeps.status import look

ROOT = Path(__file__).resolve().parents[2]
TELL = "import os, sys; print(*map(os.environ.get, ['CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS'])); sys.exit({})"


def commands(folder: Path, *scripts: str) -> list[Command]:
    return [
        Command((sys.executable, "-c", script), Path(f"outputs/toy/{number}"), folder, {})
        for number, script in enumerate(scripts)
    ]


def said(folder: Path, number: int) -> str:
    return (folder / f"outputs/toy/jobs/{number}.log").read_text().strip()


@pytest.mark.parametrize(
    ("more", "folder", "own"),
    [
        ((), "outputs/toy/seed=3", ["name='toy/seed=3'"]),
        (("hydra.sweep.dir=elsewhere",), "elsewhere/seed=3", ["name='toy'", "hydra.run.dir='elsewhere/seed=3'"]),
    ],
)
def test_a_job_is_what_is_typed_for_it_alone(
    sweep: Sweeping, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], folder: str, own: list[str]
) -> None:
    ran: list[Command] = []

    def run(self: Any, found: Sequence[Command]) -> list[int]:
        ran.extend(found)
        return [0] * len(found)

    # Hydra has looked for plug-ins then, and has its own view of the module.
    Plugins.instance()
    monkeypatch.setattr(xai_launchers.Processes, "run", run)
    monkeypatch.setenv("PYTHONPATH", "")
    # It has been composed to be checked, and once is enough.
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", None)
    # None of them has run, which is told at the end.
    assert sweep("-m", "sweep=toy", "seed=3", "launcher=processes", "hydra.launcher.jobs=1", *more) == 1
    (command,) = ran
    place = f"--config-dir={Path.cwd() / 'conf'}"
    typed = ["study=salvage", "seed=3", "logger=none", "sweep=toy", *own]
    assert list(command.arguments) == [sys.executable, os.path.abspath("run.py"), place, *typed]
    assert (command.run, command.place) == (Path(folder), Path.cwd())


def test_a_job_that_a_cluster_loses_is_not_told_by_the_record_of_an_earlier_one(
    sweep: Sweeping, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded(Path("outputs/toy/seed=3")):
        pass
    Plugins.instance()
    monkeypatch.setattr(xai_launchers.Processes, "run", lambda self, found: [1] * len(found))
    monkeypatch.setenv("PYTHONPATH", "")
    assert sweep("-m", "sweep=toy", "seed=3", "launcher=processes", "hydra.launcher.jobs=1") == 1
    assert "it ended with status 1 before it began to work" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_the_gpus_of_a_cluster_need_not_be_where_it_is_asked(
    sweep: Sweeping, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    Plugins.instance()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(xai_launchers.Slurm, "run", lambda self, found: [0] * len(found))
    monkeypatch.setenv("PYTHONPATH", "")
    asked = ("-m", "sweep=toy", "seed=3", "trainer=gpu", f"trainer.precision={precision}")
    assert sweep(*asked, "launcher=slurm") == 1
    assert "1 job: 1 missing" in capsys.readouterr().out
    assert sweep(*asked) == 2
    assert "needs a GPU" in capsys.readouterr().err


def test_processes_divide_the_cores_and_one_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    ends = Processes(jobs=2).run(commands(tmp_path, TELL.format(3), killed, TELL.format(0)))
    assert ends == [3, -9, 0]
    # No GPU is seen, and each of two has four cores.
    assert said(tmp_path, 0) == said(tmp_path, 2) == "4"


def test_cores_are_counted_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores() == 3


@pytest.mark.parametrize(("given", "own"), [("2", 2), ("9", 4), ("3,1", 3), ("", 4), ("0", 4), ("many", 4)])
def test_a_job_has_the_cores_that_it_was_given(monkeypatch: pytest.MonkeyPatch, given: str, own: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert own_cores() == own


def test_no_two_jobs_see_the_same_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,7")
    waiting = "import os, pathlib, time\n" + "\n".join(
        [
            "open(f'here-{os.getpid()}', 'w').close()",
            "deadline = time.time() + 30",
            "while len(list(pathlib.Path().glob('here-*'))) < 2 and time.time() < deadline: time.sleep(0.01)",
            "print(os.environ['CUDA_VISIBLE_DEVICES'])",
        ]
    )
    assert Processes(gpus=2).run(commands(tmp_path, waiting, waiting)) == [0, 0]
    assert {said(tmp_path, 0), said(tmp_path, 1)} == {"2,3", "5,7"}


@pytest.mark.parametrize(("there", "jobs"), [(0, None), (1, 2)])
def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch, there: int, jobs: int | None) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(UserError, match=f"the {there} that are visible"):
        Processes(jobs=jobs, gpus=1).run([])


def test_a_job_ends_with_its_launcher(tmp_path: Path) -> None:
    job = "\n".join(
        [
            "import pathlib, time",
            "from xai.core.launching import end_with_the_launcher",
            "end_with_the_launcher()",
            "for beat in range(2000):",
            "    pathlib.Path('beat').write_text(str(beat))",
            "    time.sleep(0.02)",
        ]
    )
    launcher = "\n".join(
        [
            "import sys",
            "from pathlib import Path",
            "from xai.core.launching import Command, run_command",
            f"run_command(Command((sys.executable, '-c', {job!r}), Path('outputs/toy/0'), Path.cwd(), {{}}))",
        ]
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", launcher], cwd=tmp_path, env=environment)
    beat = tmp_path / "beat"
    wait_for(lambda: beat.exists() and bool(beat.read_text()))
    process.kill()
    process.wait()
    wait_for(lambda: is_still(beat))


def is_still(beat: Path) -> bool:
    before = beat.read_text()
    time.sleep(0.3)
    return beat.read_text() == before


WARM = """
import os, pathlib, random, signal, sys, time
from wandb.sdk.data_types._private import MEDIA_TMP
from xai.core.launching import end_with_the_launcher
number = int(sys.argv[1])
print(os.getppid(), os.path.isdir(MEDIA_TMP.name), random.random(), *sys.argv, *sys.orig_argv[1:], flush=True)
if number == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if number >= 2:
    end_with_the_launcher()
if number == 2:
    os.kill(os.getppid(), signal.SIGKILL)
for beat in range(2000 if number >= 2 else 0):
    pathlib.Path(f"beat-{number}").write_text(str(beat))
    time.sleep(0.02)
sys.exit(3)
"""
LAUNCHER = """
import signal, sys
from pathlib import Path
from hydra_plugins.xai_launchers import Processes
from xai.core.launching import Command
commands = [Command((sys.executable, "job.py", str(n)), Path(f"outputs/toy/{n}"), Path.cwd(), {}) for n in range(4)]
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
Processes(jobs=1).run(commands)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
@pytest.mark.slow
def test_one_process_becomes_the_jobs_of_a_slot(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(WARM)
    (tmp_path / "json.py").write_text("raise SystemExit('a file of the user was imported')\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    launcher = [sys.executable, "-P", "-u", "-c", LAUNCHER]
    process = subprocess.Popen(launcher, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    beats = [tmp_path / f"beat-{number}" for number in (2, 3)]
    wait_for(lambda: beats[1].exists() and bool(beats[1].read_text()))
    process.kill()
    heard, _ = process.communicate()
    # One that fails, one that is killed, and one whose warm process is.
    assert [line.split()[-1] for line in heard.splitlines()[1:]] == ["3", "-9", "-9"]
    for beat in beats:
        wait_for(lambda beat=beat: is_still(beat))
    told = [said(tmp_path, number).split() for number in range(4)]
    parents = [parent for parent, *_ in told]
    assert parents[0] == parents[1] == parents[2] != parents[3]
    assert {is_there for _, is_there, *_ in told} == {"True"}  # a folder that an import has made
    assert len({number for _, _, number, *_ in told}) == 4
    assert told[1][3:] == ["job.py", "1"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")
def test_no_job_begins_once_the_launcher_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("import sys; open(f'begun-{sys.argv[1]}', 'w').close()")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    children = Path(f"/proc/{process.pid}/task")
    wait_for(lambda: has_children(children))
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate()[1]
    assert not list(tmp_path.glob("begun-*"))


def test_where_no_process_can_be_kept_warm_each_job_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xai").mkdir()
    (tmp_path / "xai" / "__init__.py").write_text("raise SystemExit(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "job.py").write_text("import sys; print(sys.argv[1]); sys.exit(3)\n")
    jobs = [Command((sys.executable, "job.py", str(n)), Path(f"outputs/toy/{n}"), tmp_path, {}) for n in range(2)]
    monkeypatch.chdir(tmp_path)
    assert Processes(jobs=1).run(jobs) == [3, 3]
    assert [said(tmp_path, number) for number in range(2)] == ["0", "1"]


def has_children(tasks: Path) -> bool:
    with contextlib.suppress(OSError):  # a thread has ended meanwhile
        return any(path.read_text() for path in tasks.glob("*/children"))
    return False


def test_slurm_in_processes_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="launcher=slurm: pip install -e '.[slurm]'")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    launcher = Slurm("local", 1, timeout_min=5, cpus_per_task=3, partition="big", mem_gb=None)
    ends = launcher.run(commands(tmp_path, TELL.format(3), "import os; os.abort()", TELL.format(0)))
    assert (ends[0], ends[2]) == (3, 0)
    assert ends[1] < 0
    assert said(tmp_path, 2).endswith("3")


def test_what_slurm_preempts_is_put_into_the_queue_again_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="launcher=slurm: pip install -e '.[slurm]'")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = "\n".join(
        [
            "import os, pathlib, time",
            "from xai.core.launching import end_with_the_launcher",
            "end_with_the_launcher()",
            "if pathlib.Path('first').exists(): print('went on'); raise SystemExit",
            "pathlib.Path('before').write_text(str(os.getppid()))",
            "os.replace('before', 'first')",
            "time.sleep(300)",
        ]
    )

    def preempt() -> None:
        wait_for((tmp_path / "first").exists)
        os.kill(int((tmp_path / "first").read_text()), signal.SIGUSR2)

    threading.Thread(target=preempt, daemon=True).start()
    assert Slurm("local", 1, timeout_min=5, cpus_per_task=1).run(commands(tmp_path, job)) == [0]
    assert said(tmp_path, 0) == "went on"


def test_ray_on_one_machine_with_two_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="launcher=ray: pip install -e '.[ray]'")
    ends = Ray(0, 1, cores=2).run(commands(tmp_path, TELL.format(3), "import os; os.abort()", TELL.format(0)))
    assert (ends[0], ends[2]) == (3, 0)
    assert ends[1] < 0
    assert said(tmp_path, 2) == "1"


def test_a_job_of_a_cluster_of_ray_has_what_it_works_by_of_the_one_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Command] = []

    def lost(ready: object) -> int:
        raise OSError("the node died\nand more")

    ray = SimpleNamespace(
        init=lambda **_: None,
        shutdown=lambda: None,
        remote=lambda **_: lambda _: SimpleNamespace(remote=lambda command: ran.append(command) or command.run),
        wait=lambda left, **_: (left[:1], left[1:]),
        get=lost,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    for name in ("PYTHONPATH", "WANDB_BASE_URL", "RAY_JOB", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "here")
    assert Ray(0, 3, "auto").run(commands(tmp_path, "pass")) == [1]
    given = ran[0].environment
    assert (given["PYTHONPATH"], given["WANDB_BASE_URL"], given["OMP_NUM_THREADS"]) == ("here", "here", "3")
    assert given["CUDA_VISIBLE_DEVICES"] == ""
    assert "RAY_JOB" not in given
    assert "0: the node died\n" in capsys.readouterr().out


GROUP = """
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from xai.core.launching import end_with_the_launcher
from xai.core.processes import run_group

def part(rank, tell):
    total = torch.tensor(rank + 10)
    distributed.all_reduce(total)
    network = DistributedDataParallel(torch.nn.Linear(2, 1), find_unused_parameters=True)
    network(torch.ones(3, 2)).sum().backward()
    tell(int(total))

if __name__ == "__main__":
    end_with_the_launcher()
    run_group(part, (), 2, "gloo", print)
"""


@pytest.mark.parametrize("name", ["processes", "slurm", "ray"])
def test_the_processes_of_one_job_find_each_other_under_every_launcher(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "processes":
        pytest.importorskip(
            {"slurm": "submitit"}.get(name, name), reason=f"launcher={name}: pip install -e '.[{name}]'"
        )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "job.py").write_text(GROUP)
    launcher = {
        "processes": lambda: Processes(jobs=1),
        "slurm": lambda: Slurm("local", 0, timeout_min=5),
        "ray": lambda: Ray(0, 1, cores=1),
    }[name]()
    command = Command((sys.executable, "job.py"), Path("outputs/toy/0"), tmp_path, {})
    assert launcher.run([command]) == [0], said(tmp_path, 0)
    assert said(tmp_path, 0).split() == ["21", "21"]  # and no advice of DDP's


@pytest.mark.parametrize("is_there", [True, False])
def test_an_array_that_slurm_refuses_is_one_line(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit", reason="launcher=slurm: pip install -e '.[slurm]'")
    for name in ("srun", "sbatch") if is_there else ():
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'invalid partition specified: big' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if is_there else str(tmp_path))
    with pytest.raises(UserError) as refused:
        Slurm("slurm", 1, timeout_min=5, partition="big").run(commands(tmp_path, "pass"))
    assert ("invalid partition" if is_there else "srun") in str(refused.value)
    assert capfd.readouterr().err == ""


def test_a_job_that_slurm_has_no_more_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\necho 9_0; echo 9_4\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    slept: list[float] = []
    # Not the function of `time` itself: `subprocess` sleeps by it too.
    monkeypatch.setattr(xai_launchers, "time", SimpleNamespace(sleep=slept.append))

    class Job:
        """Ends after so many looks; never, where none are left."""

        def __init__(self, job_id: str, looks: int) -> None:
            self.job_id, self.looks = job_id, looks

        def done(self) -> bool:
            self.looks -= 1
            return self.looks == 0

        def exception(self) -> None:
            return None

        def result(self) -> int:
            return 3

    assert xai_launchers._wait_in_queue(Job("9_0", 4)) == 3
    assert xai_launchers._wait_in_queue(Job("9_1", 2)) == 3  # its result is seen a little later
    assert xai_launchers._wait_in_queue(Job("9_1", 0)) == 1
    # A controller that does not answer has not said that the job is gone.
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert xai_launchers._wait_in_queue(Job("9_1", 4)) == 3
    assert "9_1: SLURM has it no more" in capsys.readouterr().out
    assert slept == [2.0, 2.0, 2.0, 30.0, 30.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("name", ["ray", "submitit"])
def test_a_launcher_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    launcher = Ray(0, 1) if name == "ray" else Slurm("slurm", 1)
    with pytest.raises(UserError, match="pip install -e"):
        launcher.run(commands(tmp_path, "pass"))


def test_the_launchers_that_the_configuration_names_are_there() -> None:
    assert {each for each in ("Processes", "Ray", "Slurm") if hasattr(xai_launchers, each)} == {
        line.split(".")[-1].strip()
        for path in (ROOT / "conf/launcher").glob("*.yaml")
        for line in path.read_text().splitlines()
        if "_target_" in line
    }


def test_a_job_that_was_killed_before_it_began_is_not_told_by_the_record_of_an_earlier_one(tmp_path: Path) -> None:
    with recorded(tmp_path / "outputs/toy/0"):
        pass
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert Processes(jobs=1).run(commands(tmp_path, killed, "pass")) == [-9, 0]
    found = look(Job(tmp_path / "outputs/toy/0", []))
    assert (found.state, found.said) == ("failed", "it was killed by signal 9 before it began to work")


def test_a_full_disk_at_the_record_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("xai.core.records.write_atomically", full)
    with pytest.raises(UserError, match="what is wrong"), recorded(tmp_path / "outputs/toy/0"):
        raise UserError("what is wrong")
    assert Processes(jobs=1).run(commands(tmp_path, "raise SystemExit(3)", "pass")) == [3, 0]


@pytest.mark.parametrize(
    ("typed", "wanted", "before"),
    [
        (("launcher=processes", "hydra.launcher.jobs=0"), "hydra.launcher.jobs=0 must be", False),
        (("launcher=processes", "hydra.launcher.jobs=true"), "hydra.launcher.jobs=True must be", True),
        (("launcher=processes", "hydra.launcher.jobs=x"), "hydra.launcher.jobs=x must be", True),
        (("launcher=slurm",), "launcher=slurm needs submitit", False),
        (("launcher=slurm",), "launcher=slurm needs submitit", True),
    ],
)
def test_a_refused_launcher_leaves_the_folder_of_the_sweep_as_it_was(
    typed: Sequence[str],
    wanted: str,
    before: bool,
    sweep: Sweeping,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Plugins.instance()
    monkeypatch.setitem(sys.modules, "submitit", None)  # by then Hydra has begun to write
    if before:
        Path("outputs/toy/jobs").mkdir(parents=True)
        Path("outputs/toy/jobs/sweep.json").write_text("an earlier one")
    assert sweep("-m", "sweep=toy", "seed=3", "trainer=cpu", *typed) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert wanted in said
    left = {path.as_posix(): path.read_text() for path in Path("outputs").rglob("*") if path.is_file()}
    assert left == ({"outputs/toy/jobs/sweep.json": "an earlier one"} if before else {})
    assert before or not Path("outputs").exists()
