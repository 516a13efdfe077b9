"""Sweep files, and what is shown of their runs: tables, figures, and what becomes of a paper's claims."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape

from xai.core.errors import UserError
from xai.core.files import write_atomically
from xai.core.progress import console
from xai.core.settings import build
from xai.reports import figures, removal_run, renderers, tables
from xai.reports.claim_renderers import claims_as_markdown, claims_as_rich
from xai.reports.claims import Claim, judge
from xai.reports.data_tables import published_table
from xai.reports.drawings import draw_all
from xai.reports.measured import Evidence, read_evidence
from xai.reports.page import Study
from xai.results import collect, read_result


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Args:
        title: Name of the table or figure.
        kind: What is drawn from the results, one of `SHOW`.
        about: A sentence on what to look at.
        common: Overrides of every run.
        grid: Axes; each a list of alternatives, each alternative a list of overrides. All combinations are run.
        published: The figures the paper printed, by row and metric: [mean, deviation]; those of a `removal_table` or
            a `ranking_table` by data set, row and metric: the mean, in the unit of the column.
        published_about: What the published figures were measured on.
        columns: Metrics of a `removal_table` or a `ranking_table`, in their order.
    """

    title: str
    kind: str
    about: str
    common: list[str]
    grid: list[list[list[str]]]
    published: Any = None
    published_about: str = ""
    columns: list[str] = field(default_factory=list)

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
        _write(output / f"table.{suffix}", text.encode())


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
        _write(path, figures.lambda_sweep(curves, references, _usual_choice(members)))
    console.print(sweep.about, markup=False)


def study_tables(study: Study, sweep: Sweep, folders: list[Path], output: Path) -> None:
    """A table for each data set, the paper's below, and what becomes of the claims about its columns."""
    evidence = read_evidence(folders)
    shown = study.tabulate([row.result for row in evidence.rows], sweep.columns)
    if sweep.published:
        title = f"Published ({sweep.published_about})"
        shown.append(published_table(sweep.published, sweep.columns, title, study.scheme))
    console.print(sweep.title, style="bold", markup=False)
    for table in shown:
        console.print(renderers.as_rich(table, console.width))
    console.print(sweep.about, markup=False)
    _write(output / "table.md", "\n".join(map(renderers.as_markdown, shown)).encode())
    for data, table in zip(evidence.by_data(), shown, strict=False):
        _write(output / f"table-{data}.csv", renderers.as_csv(table).encode())
    claims = [c for c in study.claims if c.source.startswith("Table") and c.metric in sweep.columns]
    _show_claims(evidence, claims, output)


def study_figures(study: Study, sweep: Sweep, folders: list[Path], output: Path) -> None:
    """The paper's figures, one of each for each data set, and what becomes of the claims they are about."""
    evidence = read_evidence(folders)
    drawn, missing = draw_all(evidence, study.drawings)
    for name, _, png in drawn:
        _write(output / f"{name}.png", png)
    for line in missing:
        console.print(f"not drawn: {line}", markup=False)
    console.print(sweep.about, markup=False)
    _show_claims(evidence, [claim for claim in study.claims if claim.source.startswith("Figure")], output)


def _show_claims(evidence: Evidence, claims: list[Claim], output: Path) -> None:
    findings = judge(evidence, claims)
    if findings:
        console.print(claims_as_rich(findings))
        _write(output / "claims.md", claims_as_markdown(findings).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    console.print(f"written: [bold]{escape(str(path))}[/]", highlight=False, soft_wrap=True)


def _usual_choice(folders: list[Path]) -> float:
    """The median of the lambda2 values that the runs chose on their validation splits."""
    chosen = sorted(read_result(folder / "results" / "proposed").params["lambda2"] for folder in folders)
    return chosen[len(chosen) // 2]


SHOW: Mapping[str, Callable[[Sweep, list[Path], Path], None]] = {
    "transfer_table": transfer_table,
    "lambda_figure": lambda_figure,
    "removal_table": partial(study_tables, removal_run.STUDY),
    "removal_figures": partial(study_figures, removal_run.STUDY),
}
"""Kind of a sweep -> what shows it."""
