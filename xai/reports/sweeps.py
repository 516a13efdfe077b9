"""Sweep files, and what is shown of their runs: a table with means and deviations, or curves with their band."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape

from xai.config import build
from xai.errors import UserError
from xai.files import write_atomically
from xai.progress import console
from xai.reports import figures, renderers, tables
from xai.results import collect, read_result


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Args:
        title: Name of the table or figure.
        kind: What is drawn from the results: `transfer_table` or `lambda_figure`.
        about: A sentence on what to look at.
        common: Overrides of every run.
        grid: Axes; each a list of alternatives, each alternative a list of overrides. All combinations are run.
        published: The figures the paper printed, by row and metric: [mean, deviation].
        published_about: What the published figures were measured on.
    """

    title: str
    kind: str
    about: str
    common: list[str]
    grid: list[list[list[str]]]
    published: Any = None
    published_about: str = ""

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
        return build(Sweep, yaml.safe_load(path.read_text()), path.name)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def transfer_table(sweep: Sweep, folders: list[Path], output: Path) -> None:
    """Table 1: every row over all runs, the paper's figures beside ours; written as Markdown and CSV."""
    results = [result for folder in folders for result in collect(folder / "results")]
    table = tables.transfer_table(
        results,
        title=sweep.title,
        published=sweep.published,
        published_heading=f"Published ({sweep.published_about})",
    )
    console.print(renderers.as_rich(table, console.width))
    console.print(sweep.about, markup=False)
    for suffix, text in {"md": renderers.as_markdown(table), "csv": renderers.as_csv(table)}.items():
        path = output / f"table.{suffix}"
        write_atomically(path, text.encode())
        console.print(f"written: [bold]{escape(str(path))}[/]", highlight=False)


def lambda_figure(sweep: Sweep, folders: list[Path], output: Path) -> None:
    """Figure 3: one picture for each pair of data sets, the band over its runs."""
    pairs: dict[tuple[str | None, str], list[Path]] = {}
    for folder in folders:
        ft_target = read_result(folder / "results" / "ft_target")
        pairs.setdefault((ft_target.source, ft_target.data), []).append(folder)
    for (source, target), members in pairs.items():
        path = output / f"{source}-to-{target}.png"
        curves = [result for folder in members for result in collect(folder / "sweep" / "test")]
        references = [read_result(folder / "results" / "ft_target") for folder in members]
        write_atomically(path, figures.lambda_sweep(curves, references, _usual_choice(members)))
        console.print(f"written: [bold]{escape(str(path))}[/]", highlight=False)
    console.print(sweep.about, markup=False)


def _usual_choice(folders: list[Path]) -> float:
    """The median of the lambda2 values that the runs chose on their validation splits."""
    chosen = sorted(read_result(folder / "results" / "proposed").params["lambda2"] for folder in folders)
    return chosen[len(chosen) // 2]


SHOW: Mapping[str, Callable[[Sweep, list[Path], Path], None]] = {
    "transfer_table": transfer_table,
    "lambda_figure": lambda_figure,
}
"""Kind of a sweep -> what shows it."""
