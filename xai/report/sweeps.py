"""Sweep files, and what is shown of all their runs together: read from the runs' frames, with nothing computed."""

import itertools
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from xai.core.settings import build, settings
from xai.report.present import hand_over, tables_of, views
from xai.report.results import Origin, write_results
from xai.study.claims import read_yaml
from xai.study.frame import join, read_frames


@settings
class Sweep:
    """A sweep file.

    Args:
        title: Name of the table or figure.
        about: A sentence on what to look at.
        common: Overrides of every run.
        grid: Axes; each a list of alternatives, each alternative a list of overrides. All combinations are run.
        tables: Files of conf/table.
        claims: Files of conf/claim.
        figures: Registered figures, by name or with settings.
        documented: Further files of conf/table, which are not shown but left for the documentation.
    """

    title: str
    about: str
    common: list[str]
    grid: list[list[list[str]]]
    tables: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    figures: list[str | dict[str, Any]] = field(default_factory=list)
    documented: list[str] = field(default_factory=list)

    def runs(self) -> list[list[str]]:
        """The overrides of every run."""
        return [[*self.common, *itertools.chain.from_iterable(choice)] for choice in itertools.product(*self.grid)]


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        UserError: It is missing, no YAML, or no sweep.
    """
    return build(Sweep, read_yaml(path, "sweep file"), path.name)


def show(sweep: Sweep, folders: Sequence[Path], output: Path, typed: str) -> Path:
    """Print the joint tables, verdicts and figures of some runs, and write them and a page into a folder.

    Args:
        sweep: What is wanted of them.
        folders: Of the runs; each holds frames.
        output: The folder.
        typed: The command that made the runs.

    Returns:
        The page.
    """
    frames = join([read_frames(folder) for folder in folders])
    shown = replace(views(frames, sweep.tables, sweep.claims, sweep.figures, {}), summary=[sweep.about])
    origin = Origin.here(typed, len(folders), sorted(int(seed) for seed in frames.scores["seed"].unique()))
    more = {name: tables_of(frames, name, {}) for name in sweep.documented}
    write_results(output / "results", replace(shown, tables={**shown.tables, **more}), origin)
    runs = {folder.name: str(folder) for folder in folders}
    return hand_over(shown, frames, output, sweep.title, f"{len(folders)} runs", runs, whole=True)
