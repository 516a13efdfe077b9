"""The jobs of a sweep: all combinations of what is typed and of the axes of a sweep file.

# conf/sweep/mine.yaml                    python run.py -m sweep=mine
title: Mine
about: What to look at.
axes: {experiment: "salvage,salvage_binary", seed: "0,1,2"}
tables: [salvage_table1]
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from xai.core.errors import UserError
from xai.core.files import read_text, short_name, write_atomically
from xai.core.overrides import MOST_JOBS, OUTPUTS, alone, command, overrides, settings_hash
from xai.core.records import FOLDER

PLAN = "sweep.json"
"""In the folder of records: which jobs the last -m was for."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Args:
        folder: Where it belongs.
        overrides: What it would be alone, but for its name.
        config: What Hydra makes of them, with its own part; None where only its folder is known.
        settings: Their hash; empty where nobody knows.
    """

    folder: Path
    overrides: Sequence[str]
    config: DictConfig | None = None
    settings: str = ""

    @property
    def command(self) -> str:
        """What to type for this run alone."""
        return command(alone(self.overrides, self.folder))


def jobs_of(typed: Sequence[str], own: Sequence[str] = (), config_name: str = "config") -> Iterator[Job]:
    """The jobs that -m makes of what is typed, composed one after the other in an initialised Hydra.

    While one is in hand, `HydraConfig` is that of the job.

    Args:
        typed: Overrides, some with several values, and among them perhaps `sweep=NAME`.
        own: Further ones, which say where Hydra looks.
        config_name: Of the whole configuration.

    Raises:
        UserError: More than there may be.
    """
    for chosen in product(*axes_of(typed, own, config_name)):
        with composed([*chosen, *own], config_name) as config:
            folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
            yield Job(folder, chosen, config, settings_hash(config))


def axes_of(typed: Sequence[str], own: Sequence[str], config_name: str) -> list[list[str]]:
    """The overrides of each axis, of the sweep file first; what is typed takes the place of an axis of the same key."""
    parser = OverridesParser.create()
    chosen = [each for each in typed if each.startswith("sweep=")]
    with composed([*chosen, *own], config_name) as config:
        given = dict(config.sweep.axes) if chosen else {}
    axes: dict[str, list[str]] = {}
    for each in parser.parse_overrides([*overrides([f"{k}={v}" for k, v in given.items()], many=True), *typed]):
        values = list(islice(each.sweep_string_iterator(), MOST_JOBS + 1)) if each.is_sweep_override() else None
        key = each.get_key_element()
        axes[key] = [each.input_line or ""] if values is None else [f"{key}={value}" for value in values]
    if math.prod(map(len, axes.values())) > MOST_JOBS:
        raise UserError(f"-m asks for more than {MOST_JOBS} jobs: give fewer values in a command")
    return list(axes.values())


@contextmanager
def composed(chosen: Sequence[str], config_name: str = "config") -> Iterator[DictConfig]:
    """A configuration with Hydra's own part, which `HydraConfig` has while the body runs."""
    config = hydra.compose(config_name, list(chosen), return_hydra_config=True)
    with seen_by(config):
        yield config


@contextmanager
def seen_by(config: DictConfig) -> Iterator[None]:
    """Look for files where the job of a configuration does, while the body runs."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def typed_here(*without: str) -> list[str]:
    """What was typed for this job, but for some settings and what is below them; references stay as they are typed."""
    typed: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    plain = [str(each).lstrip("+") for each in typed]
    return [each for each in plain if each.partition("=")[0].partition(".")[0] not in without]


def without_hydra(config: DictConfig) -> DictConfig:
    """What a job is given."""
    own = config.copy()
    with open_dict(own):
        del own["hydra"]
    return own


def write_plan(folder: Path, jobs: Sequence[Job], command: str) -> None:
    """Leave in the folder of a sweep which jobs it is for."""
    listed = [{"folder": str(job.folder), "overrides": list(job.overrides), "settings": job.settings} for job in jobs]
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    text = json.dumps({"command": command, "jobs": listed}, indent=1)
    write_atomically(folder / FOLDER / PLAN, f"{text}\n".encode())


def read_plan(folder: Path) -> tuple[str, list[Job]] | None:
    """The command and the jobs of the last -m into a folder; None where there was none."""
    path = folder / FOLDER / PLAN
    if not path.is_file():
        return None
    try:
        found: Mapping[str, Any] = json.loads(read_text(path))
        return str(found["command"]), [
            Job(Path(each["folder"]), list(each["overrides"]), settings=str(each.get("settings", "")))
            for each in found["jobs"]
        ]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"{path} does not list jobs: remove it, and start the sweep again") from None


def asked_jobs(folder: Path) -> list[Job]:
    """The jobs of the last -m into a folder; where there was none, those of the sweep file that is chosen.

    Raises:
        UserError: Neither is there.
    """
    planned = read_plan(folder)
    if planned is not None:
        return planned[1]
    chosen = HydraConfig.get().runtime.choices.get("sweep")
    if chosen is None:
        raise UserError(f"no -m has been started into {folder}: give a sweep as sweep=NAME, or its folder as name=...")
    return [replace(job, config=None) for job in jobs_of([f"sweep={chosen}", f"name={folder.relative_to(OUTPUTS)}"])]


def folder_of(jobs: Sequence[Job]) -> Path:
    """Where jobs are shown together: the folder around their own."""
    around = list(dict.fromkeys(job.folder.parent for job in jobs))
    return around[0] if len(around) == 1 else OUTPUTS / short_name("-".join(each.name for each in around), 150)
