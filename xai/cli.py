"""From the command line to a task, or to a sweep of them: Hydra composes, one line is printed for what is wrong."""

import argparse
import functools
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xai.core.common import check_common, for_elsewhere
from xai.core.composing import CONF, choices, look_in, may_be_elsewhere, searchpath
from xai.core.errors import UserError, visible
from xai.core.folders import no_folder
from xai.core.guard import guarded_loader, guarded_reader
from xai.core.launching import end_with_the_launcher, is_launched
from xai.core.overrides import as_addition, as_axis, check_begun, command, fixed, name_of, overrides, typed_keys
from xai.core.records import is_of_sweep, recorded
from xai.core.settings import unknown
from xai.tasks.early import check_typed, remember

_WORKING = ("apply_vector", "compare", "explain", "study", "supervise", "train")
"""Tasks that compute; the others look at what there is, and need not have the devices that runs were made on."""
_NO_MEMORY = "can't allocate memory|not enough memory|out of memory|_ALLOC_FAILED|Storage size calculation overflowed"


def main() -> int:
    """Run the command line; the exit status is 0, 2 for what the user can mend, 128 + the signal when stopped."""

    def work() -> None:
        prepare()
        HydraConfig.instance().cfg = None  # of an earlier job of this process, which saw other files
        sys.argv[1:] = typed = ["watch=10" if each == "--watch" else each for each in sys.argv[1:]]
        given = _given(typed)
        look_in(given.config_dir)
        if given.help and len(given.overrides) == 1 and not given.resolve:
            from xai.help import tell

            return tell(given.overrides[0], given.config_dir)
        settings = overrides(given.overrides, many=given.multirun)
        flags = [each for each in typed if each not in given.overrides]
        chosen = {key: value for key, _, value in (each.partition("=") for each in settings)}
        check_begun(chosen, many=given.multirun or given.cfg or given.help)
        if given.multirun and "," in chosen.get("sweep", ""):
            from xai.sweeps.ending import run_sweeps

            sys.exit(run_sweeps(chosen, typed))
        settings += name_of(chosen)
        run = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_run)
        if given.multirun:
            return _sweep(run, given, flags, [*settings, fixed(settings)])
        if chosen.get("task") == "plan" and {"sweep", "sweeps"} & chosen.keys():
            settings = [as_addition(each) for each in settings]
        sys.argv[1:] = [*flags, *settings]  # flags first: argparse does not find settings on both sides of one
        run()

    try:
        return report_errors(work)
    finally:
        look_in(None)


def _sweep(run: Callable[[], Any], given: argparse.Namespace, flags: Sequence[str], settings: list[str]) -> None:
    """Check all jobs of -m before the first of them runs, run them, and show what they come to together."""
    from xai.sweeps.ending import end, started

    typed = command()
    sys.argv[1:] = [*flags, *map(as_axis, settings)]

    def checked(job: Sequence[str], config: DictConfig) -> None:
        choices = HydraConfig.get().runtime.choices
        _check_places(job, str(choices["task"]))
        if choices.get("launcher") in ("ray", "slurm"):
            for_elsewhere(config)
        check_typed(config, typed_keys(job))
        from xai.app import check

        check(config, typed_keys(job), Path(HydraConfig.get().sweep.dir))

    # Which combinations another sweeper makes, it alone knows.
    is_known = not any(each.startswith("hydra/sweeper=") for each in settings)
    with started(settings, given.config_name or "config", typed, checked if is_known else None) as jobs:
        run()
    sys.exit(end(jobs, typed))


def prepare() -> None:
    """Make Hydra let its errors through and refuse what it must not run, and a stop from outside an orderly one."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if not hasattr(ConfigLoaderImpl.load_configuration, "__wrapped__"):
        ConfigLoaderImpl.load_configuration = guarded_loader(ConfigLoaderImpl.load_configuration)  # type: ignore[method-assign]
    Plugins.instance()  # which makes the classes of its readers anew
    reader: Any = SourcesRegistry.instance().resolve("file")
    if not hasattr(reader.load_config, "__wrapped__"):
        reader.load_config = guarded_reader(reader.load_config)
    # -m alone makes a sweep; Hydra would compose everything once more to find that out.
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to lose hours of work.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    if threading.current_thread() is threading.main_thread():
        _stops.clear()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, _terminate)
        if is_launched():
            end_with_the_launcher()


class _Terminated(KeyboardInterrupt):
    """A signal that ends a run in order: Ctrl-C, a kill, or a terminal that was closed."""


def _stoppable(job: Callable[[], None]) -> None:
    try:
        job()
    except Exception as error:
        if not _stops:
            raise
        raise _Terminated(_stops[0]) from error


_stops: list[int] = []
"""Signals that have come, also where somebody has made an error of his own of them, as imports do."""


def _terminate(number: int, _: Any) -> None:
    _stops.append(number)
    # A launcher and a terminal may both say so, and what is put in order by then is not disturbed.
    if len(_stops) == 1 or not is_launched():
        raise _Terminated(number)


def _given(typed: list[str]) -> argparse.Namespace:
    """Flags, and as `overrides` what is neither one nor the value of one.

    Raises:
        UserError: A flag that there is not, or that would run code.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}: settings are given as KEY=VALUE, and of flags there are --help, -m and --cfg job")

    parser.error = refuse  # type: ignore[method-assign]
    found = parser.parse_intermixed_args(typed)
    if found.resolve and not (found.cfg or found.help):
        refuse("--resolve is for --cfg job")
    if found.package is not None:
        refuse("--package is not used here")
    if found.config_path is not None:
        refuse("--config-path is not used here, --config-dir is for files of your own")
    for flag in ("shell_completion", "hydra_help"):
        if getattr(found, flag):
            refuse(f"--{flag.replace('_', '-')} is not used here")
    if any(each.lstrip("+").startswith("hydra.mode=") for each in found.overrides):
        refuse("hydra.mode is not used here, -m makes a sweep")
    if found.experimental_rerun:
        raise UserError("--experimental-rerun would run code out of a file: type the command again instead")
    return found


def report_errors(job: Callable[[], None]) -> int:
    """Run a job; print one line for whatever the user can mend, and return the exit status."""
    try:
        _stoppable(job)
        sys.stdout.flush()
    except UserError as error:
        return _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        return _fail(explain_hydra(error))
    except BrokenPipeError:
        # Who reads has gone; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is None:
            raise
        why = no_folder(Path(error.filename)) or f"cannot use {error.filename}: {error.strerror}"
        return _fail(f"{why}; choose another folder with name=... or store=...")
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # of a terminal that is gone
            said = getattr(stop, "__notes__", ["the same command goes on from here"])
            print(f"\nstopped; {said[-1]}", file=sys.stderr)
        return 128 + (stop.args[0] if isinstance(stop, _Terminated) else signal.SIGINT)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search(_NO_MEMORY, str(error)):
            raise
        return _fail(f"there is not enough memory ({str(error) or 'MemoryError'}): choose smaller sizes")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else _fail(str(end.code))
    return 0


def _run(config: DictConfig) -> int:
    job, output = HydraConfig.get(), Path(HydraConfig.get().runtime.output_dir)
    is_one_of_many = job.mode == RunMode.MULTIRUN

    def work() -> None:
        # Before anything is imported that takes its time.
        task = str(job.runtime.choices["task"])
        _check_places(job.overrides.task, task)
        if task in _WORKING:
            check_common(config)
            check_typed(config, typed_keys(job.overrides.task))
        from xai.app import run

        with recorded(output) if is_one_of_many or is_launched() or is_of_sweep(output) else nullcontext():
            run(config, output, typed_keys(job.overrides.task))

    try:
        status = report_errors(work)
    except Exception:
        # A bug, or what no job can help: of many jobs the others go on.
        if not is_one_of_many:
            raise
        traceback.print_exc()
        status = 1
    _remove_empty(output)
    if status == 2 and "xai.classifiers.networks" in sys.modules:
        remember()  # what has been imported by now, so that the next one need not wait
    if status:
        _remove_empty(Path(str(config.store)) / ".locks")
        if status > 128 or not is_one_of_many:
            # Hydra prints a line of its own before it lets an error through, and runs the rest of a sweep first.
            sys.exit(status)
    return status


def _remove_empty(folder: Path) -> None:
    """Remove a folder that a refused job has left, and those around it, where nothing is in them."""
    here = Path.cwd()
    with suppress(OSError):
        for each in (here / folder, *(here / folder).parents):
            if each == here or here not in each.parents:
                return
            with suppress(FileNotFoundError):
                each.rmdir()


def _check_places(typed: Sequence[str], task: str) -> None:
    """Refuse what Hydra lets stand, and nothing would read.

    Raises:
        UserError: A setting of a row in the place of the row's name, or a method where nothing is trained by itself.
    """
    for each in typed:
        key, _, value = each.lstrip("+").partition("=")
        if key.startswith("explainer."):
            setting = key.partition(".")[2]
            raise UserError(f"{key} is no setting: give it as explainers.<row>.{setting}={value}")
        if key == "method" and task != "train":
            raise UserError(f"method={value} says what is trained: add task=train, or choose a study with study=...")


def _fail(message: str) -> int:
    logging.getLogger("xai").debug("the job ends with an error", exc_info=True)
    if "Original Traceback" in message:
        # A worker that reads images hands over its whole traceback as text; what the user can mend stands last.
        message = re.split(r"^[\w.]*(?:UserError|MissingError): ", message, flags=re.MULTILINE)[-1]
    print(f"error: {visible(' '.join(message.split()))}", file=sys.stderr)
    return 2


def explain_hydra(error: Exception) -> str:
    """One line for what Hydra or OmegaConf refuse: what is wrong, and what would be right."""
    if isinstance(error.__cause__, UserError):
        return str(error.__cause__)  # what is made from the configuration, such as a launcher, says it in its own words
    text = str(error)
    missing = re.search(r"Could not find '([^'@]+)/([^'/]+)'", text)
    if missing:
        group, choice = missing.groups()
        line = unknown(f"{group}={choice}", choice, choices(group), group, "choose from:")
        more = "; task=explain and task=compare take any network of timm or torchvision by model.architecture=NAME"
        return line + more if group == "model" else line
    if ambiguous := re.search(r"Ambiguous value for argument '([^=']+)=(.*)'", text):
        name, values = ambiguous.groups()
        return f"{name}={values} has a comma: for a run with each value add -m, a list is {name}=[{values}]"
    key = re.search(r"Could not override '([^']+)'", text)
    return _no_such_key(key[1]) if key else _not_merged(text)


def _no_such_key(asked: str) -> str:
    path = asked
    if path.startswith("hydra."):
        return f"{path} is no setting of Hydra: python run.py --cfg hydra lists those there are"
    if followed := _followed(path):
        return followed
    parent, _, name = path.rpartition(".")
    here = _whole(_typed_groups())
    if (near := _keys_in(here, parent)) and not may_be_elsewhere(parent, name):
        return unknown(path, name, near)
    while not (keys := _keys(parent) or {each: [] for each in _keys_in(here, parent)}):
        # Not even the group is known: what is wrong is further up, at the latest where everything stands.
        path, (parent, _, name) = parent, parent.rpartition(".")
    if name not in keys:
        return unknown(path, name, _keys_in(here, parent) or keys)
    if path != asked:
        return f"{path} is a single setting, no group of them: give it as {path}=..."
    if keys[name] == list(_choices()):
        return f"{path} is no setting of what is chosen here: python run.py --help lists the settings"
    return f"{path} belongs to {' or '.join(keys[name])}"


def _not_merged(text: str) -> str:
    lines = text.strip().splitlines() or ["a file of the configuration holds something else where a group has to be"]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    if "nterpolation" in said and (typed := next((each for each in sys.argv[1:] if "${" in each), None)):
        return f"{typed} refers to what cannot be had ({said}): give the value itself"
    if merged := re.search(r"Error merging override \+*([^=]+)=(.*)", text):
        return f"{merged[1]}={merged[2]} does not fit what it is now: python run.py --help shows that"
    if "An item is already at" in said:
        return f"{said} Leave the + out"
    return f"{said}; python run.py --help lists the settings"


def _followed(path: str) -> str | None:
    """What is said where a setting lies in a group that is there as a reference to another group."""
    config, groups = _whole(_typed_groups()), path.split(".")
    for parent in (".".join(groups[:count]) for count in range(1, len(groups))):
        node = OmegaConf.to_container(config).get(parent.split(".")[0])  # type: ignore[union-attr]
        for name in parent.split(".")[1:]:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, str) and node.startswith("${") and OmegaConf.is_dict(OmegaConf.select(config, parent)):
            group: Any = OmegaConf.to_container(OmegaConf.select(config, parent), resolve=True)
            values = ",".join(f"{key}:{value}" for key, value in group.items())
            return f"{path} is that of {node[2:-1]}: set it there, or give all of {parent}: {parent}={{{values}}}"
    return None


def _typed_groups() -> tuple[str, ...]:
    """What was typed that chooses files, and where they are looked for."""
    pairs = (each.partition("=") for each in sys.argv[1:])
    chosen = (f"{key}={value}" for key, _, value in pairs if value and key and (CONF / key.split("@")[0]).is_dir())
    return (*chosen, *searchpath())


@functools.cache
def _whole(chosen: tuple[str, ...]) -> DictConfig:
    """The configuration of some choices; the default one, where they do not go together."""
    GlobalHydra.instance().clear()  # of a job that what is explained has ended
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return hydra.compose("config", overrides=list(chosen))
        except (HydraException, OmegaConfBaseException):
            return hydra.compose("config")


def _choices() -> dict[str, list[str]]:
    """What a run can be about, as messages call it, and the overrides that choose it: a task, a method, a study."""
    return {
        **{f"task={name}": [f"task={name}"] for name in choices("task") if name not in ("train", "study")},
        **{f"method={name}": ["task=train", f"method={name}"] for name in choices("method")},
        **{f"study={name}": [f"study={name}"] for name in choices("study")},
    }


def _keys(parent: str) -> dict[str, list[str]]:
    """The settings there are at a dotted path of the default configuration, with the choices that have them."""
    found: dict[str, list[str]] = {}
    for choice, chosen in _choices().items():
        for key in _keys_in(_whole(tuple(chosen)), parent):
            found.setdefault(key, []).append(choice)
    return found


def _keys_in(node: Any, parent: str) -> list[str]:
    for name in filter(None, parent.split(".")):
        node = node.get(name) if isinstance(node, DictConfig) and name in node else None
    return [str(key) for key in node] if isinstance(node, DictConfig) else []
