"""What a configuration may say of Hydra: no code but ours, no shell, and no place outside of the folder of all runs.

What is typed on the command line is the user's own; a file may come from anybody.
"""

import dataclasses
import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import hydra.conf
import yaml
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xai.core.common import Sweep
from xai.core.composing import CONF, first_keys
from xai.core.errors import UserError
from xai.core.files import read_text, short_name
from xai.core.settings import build, unknown

_MOST_BYTES = 1 << 20
"""Of a file of settings."""
_TARGETS = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    *(f"hydra_plugins.xai_launchers.{name}" for name in ("Processes", "Ray", "Slurm")),
}
"""Launchers and sweepers that are shipped."""

_REFERENCE = re.compile(r"\$\{(?!\s*(?:[\w.\[\]@-]+\s*\}|(?:hydra|now|oc\.env|xai\.\w+)\s*:))")
"""A reference that could become more than text or a setting that stands elsewhere, when it is used."""
_SHELL = {"setup", "python", "srun_args", "runtime_env", "env_set", "additional_parameters"}
"""Settings of launchers that a shell reads, or that say where something is written."""
_PLAIN = re.compile(r"(?:[\w.:/@,+%=-]|\$\{hydra[.:][\w.]+\})*")
"""Text that a shell takes as it is."""


def check_config(config: DictConfig) -> None:
    """Refuse what would run code or write elsewhere, in a configuration that Hydra has composed and not yet used.

    Raises:
        UserError: A class that is not among those shipped, what a shell would read, a name that leaves the folder of
            all runs, or a file that was meant for the whole and is not.
    """
    whole: Any = OmegaConf.to_container(config, resolve=False)
    for path, key, value in _leaves(whole, ""):
        if (key == "_target_" and value not in _TARGETS) or _REFERENCE.search(value if isinstance(value, str) else ""):
            _refuse_code(path, value)
    _check_hydra(whole.get("hydra", {}))
    if "sweep" in whole:
        # Before Hydra makes the names of jobs of the axes.
        build(Sweep, whole["sweep"], "sweep")
    for group in ("experiment", "task", "study", "method"):
        if OmegaConf.is_dict(config.get(group)):
            raise UserError(
                f"the file of {group} does not say where it belongs: begin it with # @package _global_ (its very first "
                "bytes: without a byte order mark)"
            )
    for key in (each[1:] for each in sys.argv[1:] if each.startswith("~")):
        if key not in config and key in first_keys():
            raise UserError(f"~{key} takes away what a job needs: leave it out, or give {key}=...")
    # Before Hydra makes the folder.
    if "name" in config:
        check_name(config.get("name"))
    for each in ("run", "sweep"):
        _check_folder(config, f"hydra.{each}.dir")
    if "store" in config and not str(config.get("store") or "").strip():
        raise UserError("store is empty: give the folder of the store as store=...")


def guarded_loader(load: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Hydra's loader of whole configurations: one line for what it cannot put together, and what may not be refused."""

    @functools.wraps(load)
    def loaded(*args: Any, **kwargs: Any) -> DictConfig:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*Defaults list is missing `_self_`")
                warnings.filterwarnings("error", message=".*is not available")
                config = load(*args, **kwargs)
        except (HydraException, OmegaConfBaseException, UserError):
            raise
        except Exception as error:  # whatever the parsers make of what they were given
            raise UserError(f"the configuration cannot be put together, and must be mended: {error}") from error
        check_config(config)
        return config

    return loaded


def guarded_reader(load: Callable[[Any, str], ConfigResult | None]) -> Callable[[Any, str], ConfigResult | None]:
    """Hydra's reader of a YAML file with refusals in front: what is no text of keys, or could grow without bound."""

    @functools.wraps(load)
    def loaded(source: Any, config_path: str) -> ConfigResult | None:
        path = Path(source.path, config_path if config_path.endswith((".yaml", ".yml")) else f"{config_path}.yaml")
        if path.is_relative_to(CONF) or not path.is_file():
            return load(source, config_path)
        try:
            text = read_text(path, _MOST_BYTES)
            if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
                raise ValueError("names of YAML, & and *, are not used here, for what they repeat may have no end")
            found = load(source, config_path)
        except HydraException:
            raise
        except Exception as error:  # whatever the parsers make of it
            why = " ".join(str(error).split())[:300] or "a name or a reference in it is none"
            if isinstance(error, UnicodeDecodeError):
                why = "it is not UTF-8"
            raise UserError(f"{path} cannot be read and must be mended: {why}") from error
        if found is None or not OmegaConf.is_dict(found.config):
            raise UserError(f"{path} must hold settings, lines of the form key: value")
        places = OmegaConf.select(found.config, "hydra.searchpath", throw_on_resolution_failure=False)
        for place in places if OmegaConf.is_list(places) else []:
            if str(place).startswith("pkg://"):
                _refuse_code("hydra.searchpath", place)
        return found

    return loaded


def _check_hydra(given: Mapping[str, Any]) -> None:
    known = {"env", "output", *(field.name for field in dataclasses.fields(hydra.conf.HydraConf))}
    if strange := sorted(given.keys() - known):
        raise UserError(unknown(f"hydra.{strange[0]}", strange[0], known, "setting of Hydra"))
    for key in ("job_logging", "hydra_logging"):
        if key in given and given[key] not in _logging():
            raise UserError(
                f"hydra.{key} is changed, which names code or opens files: leave it out, and add hydra.verbose=true to "
                "hear more"
            )
    for key in ("launcher", "sweeper"):
        if not isinstance(given.get(key, {"_target_": ""}), Mapping) or "_target_" not in given.get(key, ["_target_"]):
            raise UserError(f"hydra.{key}={given[key]} is none: choose it with hydra/{key}=basic")
    for name, each in (given.get("callbacks") or {}).items():
        if not isinstance(each, Mapping) or each.get("_target_") not in _TARGETS:
            _refuse_code(f"hydra.callbacks.{name}", each)
    _check_run(given)


def _check_run(given: Mapping[str, Any]) -> None:
    subdir = str(given.get("sweep", {}).get("subdir", ""))
    may_leave = subdir.startswith("/") or (not subdir.startswith("${xai.") and re.search(r"\$\{(?!hydra)", subdir))
    if ".." in PurePath(subdir).parts:  # where no job's record would be found again
        raise UserError(f"hydra.sweep.subdir={subdir} leaves the folder of the sweep: leave it out, or use a name")
    if (".." in subdir or may_leave) and not _is_typed("hydra.sweep.subdir"):
        raise UserError(f"hydra.sweep.subdir={subdir} may leave outputs/: leave it out, or type it on the command line")
    job = given.get("job", {})
    for path, value, right in (
        ("hydra.output_subdir", given.get("output_subdir"), "the record of a run is written with its results"),
        ("hydra.job.chdir", job.get("chdir"), "change the folder before the command"),
        ("hydra.job.env_set", job.get("env_set"), "set variables before the command"),
    ):
        if value:
            raise UserError(f"{path}={value} is not used here: leave it out, {right}")
    _check_shell((*_leaves(given.get("launcher"), "hydra.launcher"), ("hydra.job.name", "name", job.get("name"))))
    verbose = given.get("verbose", False)
    if not isinstance(verbose, bool | str) and not all(isinstance(each, str) for each in verbose or [0]):
        raise UserError(f"hydra.verbose={verbose} must be true, false or a list of loggers")


def _check_shell(leaves: Iterable[tuple[str, str, Any]]) -> None:
    for path, key, value in leaves:
        is_odd = set(path.split(".")) & _SHELL or not _PLAIN.fullmatch(str(value))
        if key != "_target_" and value and value is not True and is_odd and not _is_typed(path):
            raise UserError(f"{path}={value} is read by a shell, which no file may write: type it on the command line")


def _check_folder(config: DictConfig, path: str) -> None:
    """Refuse a folder of Hydra's that a file has set outside of outputs/."""
    try:
        folder = OmegaConf.select(config, path)
    except OmegaConfBaseException:  # told when it is used
        return
    if isinstance(folder, str) and not _is_typed(path):
        first, *parts = PurePath(folder).parts or ("",)
        if first != "outputs" or ".." in parts:
            raise UserError(f"{path}={folder} is outside of outputs/: use name=..., or type it on the command line")


def _refuse_code(path: str, value: Any) -> None:
    raise UserError(
        f"{path}={value} names code, which a configuration may not: leave it out (launchers and sweepers that come "
        "with xai can be chosen; modules of your own are named in plugins)"
    )


@functools.cache
def _logging() -> list[Any]:
    """What may be chosen as hydra/job_logging and hydra/hydra_logging: what opens no file."""
    folders = (CONF / "hydra", Path(str(hydra.conf.__file__)).parent / "hydra")
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*_logging/*.yaml")]
    return [yaml.safe_load(text) for text in texts if "filename" not in text]


def _is_typed(path: str) -> bool:
    keys = [each.lstrip("+").partition("=")[0] for each in sys.argv[1:]]
    return any(path == key or path.startswith((f"{key}.", f"{key}[")) for key in keys if key)


def check_name(name: Any) -> None:
    """Refuse a name of a run that is none, leaves outputs/, or would leave no room for the names of files."""
    parts = name.split("/") if isinstance(name, str) else []
    inside = parts and all(part.strip() and part[0] not in ".~" for part in parts) and name.isprintable()
    if inside and (len(name.encode()) > 1000 or max(len(part.encode()) for part in parts) > 200):
        raise UserError(
            f"name={short_name(name, 60)} is too long for a folder: each word between / has at most 200 bytes, and all "
            "of it 1,000"
        )
    if not inside or PurePath(parts[0]) == PurePath("store"):
        shown = "" if name is None else str(name)
        raise UserError(
            f"name={shown if shown.isprintable() else ascii(shown)} is no folder below outputs/: use words, and / "
            "between them; store, names that begin with . or ~ and absolute paths are taken"
        )


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            at = f"{path}.{key}" if path else str(key)
            yield at, str(key), value if not isinstance(value, dict | list) else None
            yield from _leaves(value, at)
