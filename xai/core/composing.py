"""One file of a configuration group by itself, composed as Hydra would, from wherever this job's configuration is."""

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from xai.core.errors import UserError
from xai.core.settings import unknown

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = next((found for found in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if found.is_dir()), _PACKAGE / "conf")
"""The configuration that comes with the framework: inside the package of a wheel, beside it in a clone."""

Source = tuple[str, str]
"""A provider and a path, as Hydra's search path has them."""

POOLED = "_pooled"
"""What the name of any row of pixels may end in: its maps averaged within patches."""
BUDGET = re.compile(r"(?P<of>.+)_(?P<number>[1-9][0-9]*)")
"""What the name of any row that asks about perturbed images may end in: `kernel_shap_64` asks about 64."""


_own: list[Path] = []
"""The folder that --config-dir names, where Hydra looks as well."""


def look_in(folder: str | None) -> None:
    """Look in a folder of the user's own as well, also where no job says so; None: no longer."""
    _own[:] = [Path(folder).absolute()] if folder else []


def searchpath() -> list[str]:
    """The same, as an override of a configuration that is composed."""
    return [f"hydra.searchpath=[file://{folder}]" for folder in _own]


def choices(group: str) -> list[str]:
    """All files of a configuration group that this job can see, sorted."""
    # A folder's time changes with its files; listed anew for every row, it was a third of all that task=plan does.
    times = tuple(folder.stat().st_mtime_ns if (folder := each / group).is_dir() else 0 for each in _folders())
    return list(_listed(_sources(), group, times))


@cache
def _listed(sources: tuple[Source, ...], group: str, times: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(sorted(_loader(sources).repository.get_group_options(group, ObjectType.CONFIG)))


def stem(name: str) -> str:
    """The row whose file a name is about: that of its own name, or the one that it is in patches, or of a budget."""
    if name in choices("explainer"):
        return name
    if name.endswith(POOLED):
        return stem(name.removesuffix(POOLED))
    budget = BUDGET.fullmatch(name)
    return stem(budget["of"]) if budget else name


def compose_choice(group: str, name: str, asked: str | None = None) -> DictConfig:
    """Compose `<group>/<name>.yaml` with its defaults list, by itself; interpolations stay as they are written.

    The file is looked for where Hydra looks (`--config-dir`, `hydra.searchpath`), and outside a job of Hydra's in the
    configuration that comes with the framework.

    Raises:
        UserError: Where there is no such file.
    """
    known = choices(group)
    if name not in known:
        raise UserError(unknown(f"{asked or group}={name}", name, known, group, "choose from"))
    return OmegaConf.create(_composed(_sources(), group, name))


def config_file(group: str, name: str) -> Path:
    """The file `<group>/<name>.yaml`, of whatever this job's configuration can see.

    Raises:
        UserError: There is none of this name.
    """
    folders = _folders()
    leads_away = name.startswith("/") or ".." in name.split("/")
    paths = [] if leads_away else [folder / group / f"{name}.yaml" for folder in folders]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        known = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        raise UserError(unknown(f"{group}={name}", name, known, group, "choose from"))
    return found


def shipped(name: str) -> dict[str, Any]:
    """What a file that comes with the framework says by itself, such as `task/compare`."""
    found: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def may_be_elsewhere(parent: str, name: str) -> bool:
    """Whether any choice could have a setting of a name at a dotted path; only composing all tells for sure."""
    word = re.escape(name)
    # Where everything stands, files write it without indentation, or say that they belong there.
    said = re.compile(rf"\b{word}\b" if parent else rf"^{word}\b|@(?:package )?{word}\b", re.MULTILINE)
    files = (path for path in CONF.rglob("*.yaml") if parent or path.parent.name not in ("explainer", "table", "claim"))
    return (CONF / name).is_dir() or any(said.search(path.read_text(encoding="utf-8")) for path in files)


def _folders() -> list[Path]:
    places = [place for _, place in _sources()]
    return [Path(place.removeprefix("file://")) for place in places if place.startswith(("file://", "/"))]


def _sources() -> tuple[Source, ...]:
    # What the job was composed from, which unlike the loader's own search path has what was added on the command line.
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        return tuple((found.provider, f"{found.schema}://{found.path}") for found in sources)
    if GlobalHydra.instance().is_initialized():
        path = GlobalHydra.instance().config_loader().get_search_path().get_path()
        return tuple((found.provider or "", found.path or "") for found in path)
    return (("main", f"file://{CONF}"), *(("own", f"file://{folder}") for folder in _own), ("schema", "structured://"))


@cache
def _loader(sources: tuple[Source, ...]) -> ConfigLoaderImpl:
    # Hydra's readers of files are plug-ins of its own, which outside a job nobody has loaded yet.
    Plugins.instance()
    path = ConfigSearchPathImpl()
    for provider, place in sources:
        path.append(provider, place)
    return ConfigLoaderImpl(path)


@cache
def _composed(sources: tuple[Source, ...], group: str, name: str) -> dict[str, Any]:
    """Without Hydra's own settings, which would take ten times as long as all else."""
    loader = _loader(sources)
    repository = CachingConfigRepository(loader.repository)
    with warnings.catch_warnings():
        # Hydra takes the file for a whole configuration, of which it wants to know where `_self_` is; in a group that
        # may be left out.
        warnings.filterwarnings("ignore", message=".*Defaults list is missing `_self_`")
        defaults = create_defaults_list(
            repo=repository, config_name=f"{group}/{name}", overrides_list=[], prepend_hydra=False, skip_missing=False
        ).defaults
    composed = loader._compose_config_from_defaults_list(defaults=defaults, repo=repository)
    for part in group.split("/"):
        composed = composed.get(part) or OmegaConf.create({})
    chosen: Any = OmegaConf.to_container(composed)
    return chosen


def first_keys() -> set[str]:
    """The first level of all settings that a task, a study or a method has, in all that this job can see."""
    return _first_keys(_sources())


@cache
def _first_keys(sources: tuple[Source, ...]) -> set[str]:
    loader = _loader(sources)
    names = ["config", *(f"{group}/{name}" for group in ("task", "study", "method") for name in choices(group))]
    found: set[str] = set()
    for name in names:
        result = loader.repository.load_config(name)
        assert result is not None
        found.update(str(key) for key in result.config)
        for default in result.defaults_list or []:
            if isinstance(default, GroupDefault) and not default.override:
                found.add(str(default.package or default.group).split(".")[0])
    return found
