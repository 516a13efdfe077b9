"""What the runs of a sweep come to, together: tables, verdicts, figures and a page, read from the runs' frames.

Nothing is computed. After the last job of -m, and at any time by `task=report sweep=NAME` (or `name=FOLDER`).
"""

import glob
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from xai.core.common import Sweep
from xai.core.errors import UserError, visible
from xai.core.files import read_text
from xai.core.folders import run_folder, shown
from xai.core.overrides import OUTPUTS, command, without_launcher
from xai.core.progress import console
from xai.core.settings import settings
from xai.sweeps.jobs import Job, asked_jobs, read_plan
from xai.tasks.registry import Task

T = TypeVar("T")
_VIEWS = ("tables", "claims", "figures")


@settings
class ReportSettings:
    """Settings of task=report.

    Args:
        task: `report`.
        name: The folder of the sweep below outputs/.
        sweep: The sweep file.
        runs: Folders of runs, a glob or several, in place of those of the sweep.
    """

    task: str
    name: str
    sweep: Sweep
    runs: str | tuple[str, ...] | None


def run(asked: ReportSettings, output: Path) -> None:
    """Show together what there is."""
    folder = OUTPUTS / asked.name
    jobs: list[Job] = []
    if asked.runs is None:
        jobs, typed = asked_jobs(folder), (read_plan(folder) or ("",))[0]
        folders = [job.folder for job in jobs]
    else:
        patterns = [asked.runs] if isinstance(asked.runs, str) else list(asked.runs)
        folders = [Path(found) for pattern in patterns for found in sorted(glob.glob(pattern)) if Path(found).is_dir()]
        typed = ""
    show(asked.sweep, folders, output, asked.name, typed or command(), _settings_of(jobs))


def report(jobs: Sequence[Job], sweep: Sweep, folder: Path, typed: str) -> None:
    """What `task=report` does, after the last job of -m; runs that leave no frames have nothing to show together."""
    if not any(_has_frames(job.folder) for job in jobs):
        return
    name = folder.relative_to(OUTPUTS) if folder.is_relative_to(OUTPUTS) else folder
    with run_folder(folder, adds=True) as output:
        show(sweep, [job.folder for job in jobs], output, name.as_posix(), typed, _settings_of(jobs))


def show(
    sweep: Sweep, folders: Sequence[Path], output: Path, name: str, typed: str, asked_for: Mapping[Path, str]
) -> Path:
    """Print the joint tables, verdicts and figures of some runs, and write them and a page into a folder.

    Args:
        sweep: What is wanted of them; without tables, claims and figures, what its runs themselves show.
        folders: Of the runs; those without frames are named as missing.
        output: The folder.
        name: What it is called where the sweep has no title.
        typed: The command that made the runs; what starts them is left out of the results.
        asked_for: Hashes of the settings that the runs are to have now, by folder, as far as they are known.

    Returns:
        The page.

    Raises:
        UserError: None of them has frames.
    """
    # Here: a wrong name is refused before anybody waits for what shows tables.
    from xai.report.present import hand_over, has_any_of, tables_of, views
    from xai.report.results import Origin, write_results
    from xai.study.frame import join, read_frames, settings_apart, told_apart

    there = [folder for folder in folders if _has_frames(folder)]
    if not there:
        raise UserError(f"{name}: no run has results yet: start it with -m, or name folders of runs as runs=...")
    if not any(getattr(sweep, each) for each in _VIEWS):
        own = _recorded(there[0] / ".hydra" / "config.yaml", dict)
        asked_of_runs: dict[str, Any] = {each: tuple(own.get(each) or ()) for each in _VIEWS}
        sweep = replace(sweep, **asked_of_runs)
    asked = settings_apart([_recorded(folder / ".hydra" / "overrides.yaml", list) for folder in there])
    frames = join(told_apart(list(zip(asked, map(read_frames, there), strict=True))))
    missing = [f"{folder.name}: no results yet" for folder in folders if folder not in there]
    found = views(frames, sweep.tables, sweep.claims, sweep.figures, {})
    unlabelled = _unlabelled(map(str, frames.scores["metric"].unique()), there)
    summary = [*([sweep.about] if sweep.about else []), *_outdated(there, asked_for), *unlabelled]
    found = replace(found, summary=summary, missing=[*found.missing, *missing])
    seeds = sorted(int(seed) for seed in frames.scores["seed"].unique())
    commits = [str(made["commit"]) for made in map(_made, there) if made.get("commit")]
    origin = Origin.here(without_launcher(typed), len(there), seeds, commits)
    more = {each: tables_of(frames, each, {}) for each in sweep.documented if has_any_of(frames, each)}
    write_results(output / "results", replace(found, tables={**found.tables, **more}), origin)
    runs = {folder.name: str(folder) for folder in there}
    about = f"{len(there)} run{'s' * (len(there) != 1)}" + f" of {len(folders)}" * bool(missing)
    page = hand_over(found, frames, output, sweep.title or name, about, runs, whole=True)
    console.print(f"report: [bold]{shown(page)}[/]", highlight=False, soft_wrap=True)
    return page


def _settings_of(jobs: Sequence[Job]) -> dict[Path, str]:
    return {job.folder: job.settings for job in jobs}


def _outdated(folders: Sequence[Path], asked_for: Mapping[Path, str]) -> list[str]:
    """A sentence on the runs whose numbers are of other settings than they are to have now, if there are any."""
    pairs = {folder.name: {str(_made(folder).get("settings", "")), asked_for.get(folder, "")} for folder in folders}
    names = [name for name, pair in pairs.items() if len(pair - {""}) > 1]
    if not names:
        return []
    few = ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
    are = "was made at settings" if len(names) == 1 else "were made at settings"
    return [f"{len(names)} of {len(folders)} runs {are} that the sweep no longer has ({few}): start it again."]


def _unlabelled(columns: Iterable[str], folders: Sequence[Path]) -> list[str]:
    """A sentence on columns that no metric here has, where the runs had plug-ins that this process has not.

    What a folder names is not imported unasked: whoever wrote it may be anybody, and an import runs code.
    """
    from xai.metrics import registry as metrics

    known = metrics.columns()
    unknown = [visible(name) for name in columns if name not in known]
    if not unknown:
        return []
    recorded = (_recorded(folder / ".hydra" / "config.yaml", dict).get("plugins") for folder in folders)
    listed = [str(name) for names in recorded if isinstance(names, list) for name in names]
    modules = [name for name in dict.fromkeys(listed) if all(part.isidentifier() for part in name.split("."))]
    absent = ",".join(name for name in modules if name not in sys.modules)
    if not absent:
        return []
    few = ", ".join(unknown[:3]) + f" and {len(unknown) - 3} more" * (len(unknown) > 3)
    what = f"the column{'s' * (len(unknown) > 1)} {few}"
    return [f"No metric here has {what}, and the runs had plug-ins: add plugins=[{absent}] for labels and directions."]


def _made(folder: Path) -> dict[str, Any]:
    """What made a run; empty where that was not recorded."""
    return _recorded(folder / ".hydra" / "made.yaml", dict)


def _has_frames(folder: Path) -> bool:
    from xai.study.frame import NAMES

    return all((folder / f"{name}.csv").is_file() for name in NAMES)


def _recorded(path: Path, kind: type[T]) -> T:
    """What Hydra has written of a run; empty where it has not."""
    if not path.is_file():
        return kind()
    try:
        found = yaml.safe_load(read_text(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        found = None
    if not isinstance(found, kind):
        raise UserError(f"{path} is damaged: start that run again, or remove its folder")
    return found


TASK = Task("task=report", ReportSettings, run, adds=True)
