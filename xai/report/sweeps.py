"""Sweep files, and what is shown of all their runs together: read from the runs' frames, with nothing computed."""

import itertools
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import yaml

from xai.core.errors import UserError
from xai.core.job import command
from xai.core.settings import build, settings
from xai.report import page
from xai.report.present import Views, as_page, say, views, write
from xai.study.files import read_frames
from xai.study.frame import join


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
    """

    title: str
    about: str
    common: list[str]
    grid: list[list[list[str]]]
    tables: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    figures: list[str | dict[str, Any]] = field(default_factory=list)

    def runs(self) -> list[list[str]]:
        """The overrides of every run."""
        return [[*self.common, *itertools.chain.from_iterable(choice)] for choice in itertools.product(*self.grid)]


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        UserError: Where it is missing, no YAML, or not a sweep.
    """
    if not path.is_file():
        near = ", ".join(sorted(p.name for p in path.parent.glob("*.yaml"))) if path.parent.is_dir() else ""
        raise UserError(f"{path} is no sweep file" + (f": there are {near}" if near else ""))
    try:
        return build(Sweep, yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def show(sweep: Sweep, folders: Sequence[Path], output: Path) -> Path:
    """Print the joint tables, verdicts and figures of some runs, and write them and a page into a folder.

    Args:
        sweep: What is wanted of them.
        folders: Of the runs; each holds frames.
        output: The folder.

    Returns:
        The page.
    """
    output.mkdir(parents=True, exist_ok=True)
    frames = join([read_frames(folder) for folder in folders])
    shown = views(frames, Views(sweep.tables, sweep.claims, sweep.figures), {}, [sweep.about])
    write(shown, frames, output)
    say(shown)
    runs = {folder.name: str(folder) for folder in folders}
    about = f"{len(folders)} runs"
    return page.write_page(output / "report.html", as_page(shown, frames, sweep.title, about, runs, {}, command()))
