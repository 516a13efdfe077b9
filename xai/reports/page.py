"""What a person gets from a study: the tables, the claims, the figures, and one page that holds them all."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.markup import escape

from xai.core.files import write_atomically
from xai.core.progress import console
from xai.core.runtime import Runtime
from xai.reports import renderers
from xai.reports.claim_renderers import claims_as_html, claims_as_markdown, claims_as_rich, tally
from xai.reports.claims import Claim, Finding, judge
from xai.reports.data_tables import Scheme
from xai.reports.drawings import Drawing, draw_all
from xai.reports.html import Block, Code, Definitions, Fragment, Picture, Prose, Section, TableBlock, write_report
from xai.reports.measured import read_evidence
from xai.reports.tables import Table, describe
from xai.results import Result

REPORT = "report.html"

_NAMED = 6
"""How many claims that do not hold the summary names; the list below it has all."""


@dataclass(frozen=True)
class Study:
    """A paper as a page shows it.

    Attributes:
        title: Of the page.
        scheme: Rows and columns of its tables.
        tabulate: Makes a table for each data set of the given metrics, as `data_tables`.
        tables: Metrics of each table by title.
        claims: What is judged.
        drawings: Its figures.
    """

    title: str
    scheme: Scheme
    tabulate: Callable[[Sequence[Result], Sequence[str]], list[Table]]
    tables: Mapping[str, Sequence[str]]
    claims: Sequence[Claim]
    drawings: Sequence[Drawing]


def present(
    study: Study, runtime: Runtime, output: Path, sheets: Mapping[str, Picture], command: str, notes: Mapping[str, str]
) -> None:
    """Print what a run gave, and write tables, claims, figures and the page into its folder.

    Args:
        study: What is to be shown.
        runtime: The bench it was made at.
        output: The folder of the run, which holds the parts of an `Evidence`.
        sheets: Pictures of maps by the name of their file.
        command: What was typed.
        notes: What else the page is to keep: by name, its text.

    Raises:
        UserError: There are no results, or what lies there is no table.
    """
    evidence = read_evidence([output])
    results = [row.result for row in evidence.rows]
    tables, findings = _tables(study, results), judge(evidence, study.claims)
    drawn, missing = draw_all(evidence, study.drawings)
    _print(tables, findings, missing)
    _write_tables(study, output, results, tables, findings)
    _write_figures(
        output / "figures", {name: png for name, _, png in drawn} | {name: sheet.png for name, sheet in sheets.items()}
    )
    nothing: list[Block] = [Prose(["No picture was asked for."])]
    sections = [
        Section("The tables", [TableBlock(table) for table in tables]),
        Section("The claims", [Fragment(claims_as_html(findings))]),
        Section("The figures", _figures(drawn, missing)),
        Section("What the maps look like", [*sheets.values()] or nothing),
        Section("Rows and metrics", [Definitions(_glossary(study.scheme, results, tables))]),
        Section("How this was made", [Code(command), Definitions([*notes.items(), *_notes(runtime, results)])]),
    ]
    page = write_report(output / REPORT, study.title, _summary(findings), sections, describe(results))
    _log(runtime, results)
    store = os.path.relpath(runtime.store.root)
    console.print(f"\nstore: {runtime.store.summary()} ({escape(store)})", highlight=False, soft_wrap=True)
    console.print(f"report: [bold]{escape(os.path.relpath(page))}[/]", highlight=False, soft_wrap=True)


def _print(tables: Sequence[Table], findings: Sequence[Finding], missing: Sequence[str]) -> None:
    for table in tables:
        console.print(renderers.as_rich(table, console.width))
    if findings:
        console.print(claims_as_rich(findings))
    for line in missing:
        console.print(f"not drawn: {line}", markup=False)


def _write_tables(
    study: Study, output: Path, results: Sequence[Result], tables: Sequence[Table], findings: Sequence[Finding]
) -> None:
    (everything, *_) = study.tabulate(results, list(study.scheme.columns))
    write_atomically(output / "table.md", "\n".join(map(renderers.as_markdown, tables)).encode())
    write_atomically(output / "table.csv", renderers.as_csv(everything).encode())
    write_atomically(output / "claims.md", claims_as_markdown(findings).encode())


def _write_figures(folder: Path, figures: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in figures.items():
        write_atomically(folder / f"{name}.png", png)


def _tables(study: Study, results: Sequence[Result]) -> list[Table]:
    """Those that some result has a metric of."""
    measured = {name for result in results for name in result.metrics}
    wanted = {title: metrics for title, metrics in study.tables.items() if measured & set(metrics)}
    return [
        replace(table, title=f"{title} · {table.title}")
        for title, metrics in wanted.items()
        for table in study.tabulate(results, metrics)
    ]


def _summary(findings: Sequence[Finding]) -> list[str]:
    """What it comes to, in sentences whose words follow from the verdicts."""
    if not findings:
        return ["No two rows of a claim were measured, so nothing is said of any."]
    failed = [finding.claim.text for finding in findings if finding.verdict == "does not hold"]
    more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    seeds = max(len(finding.by_seed) for finding in findings)
    spread = "one seed, so no spread between trainings is known" if seeds == 1 else f"{seeds} seeds"
    return [
        f"{tally(findings)} The numbers are of {spread}.",
        f"What does not hold: {'; '.join(failed[:_NAMED])}{more}." if failed else "No claim was shown not to hold.",
    ]


def _figures(drawn: Sequence[tuple[str, Drawing, bytes]], missing: Sequence[str]) -> list[Block]:
    pictures = [Picture(png, drawing.alt, drawing.caption, drawing.width) for _, drawing, png in drawn]
    # Drawn with 160 pixels an inch, shown with at most 120, or a small figure would fill the page.
    blocks: list[Block] = [replace(picture, max_width=picture.size[0] * 3 // 4) for picture in pictures]
    return blocks + [Prose([f"Not drawn: {line}." for line in missing])] * bool(missing)


def _glossary(scheme: Scheme, results: Sequence[Result], tables: Sequence[Table]) -> list[tuple[str, str]]:
    present = {result.role for result in results}
    shown = {column.name for table in tables for column in table.columns}
    rows = [(role.label, role.explanation) for role in scheme.roles.values() if role.name in present]
    return rows + [(f"{c.label} {c.arrow}", c.explanation) for c in scheme.columns.values() if c.name in shown]


def _notes(runtime: Runtime, results: Sequence[Result]) -> list[tuple[str, str]]:
    lineage = results[0].lineage
    versions = ", ".join(f"{name} {version}" for name, version in lineage.get("versions", {}).items())
    seconds = sum(artifact.seconds for artifact in (*runtime.store.made, *runtime.store.found))
    images = " or ".join(f"{n:,}" for n in sorted({result.n_images for result in results}))
    return [
        ("images measured", images),
        ("time to make everything", f"{seconds:.0f} s"),
        ("peak memory", f"{max(result.peak_memory_bytes for result in results) / 2**20:,.0f} MiB"),
        ("device", str(runtime.trainer.device)),
        ("precision", runtime.trainer.precision),
        ("versions", versions),
        ("commit", str(lineage.get("commit", "unknown"))),
    ]


def _log(runtime: Runtime, results: Sequence[Result]) -> None:
    if not runtime.logger:
        return
    runtime.logger.log_metrics({f"result/{r.role}/{name}": value for r in results for name, value in r.metrics.items()})
    runtime.logger.finalize("success")
