"""What a person gets from `method=salvage`: the tables, the claims, the figures, and one page that holds them all."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.markup import escape

from xai.files import write_atomically
from xai.progress import console
from xai.reports import renderers
from xai.reports.claim_renderers import claims_as_html, claims_as_markdown, claims_as_rich, tally
from xai.reports.claims import Finding, judge
from xai.reports.html import Block, Code, Definitions, Fragment, Picture, Prose, Section, TableBlock, write_report
from xai.reports.measured import read_evidence
from xai.reports.removal_figures import Drawing, draw_all
from xai.reports.removal_pictures import Pictures, picture_sheet
from xai.reports.removal_roles import COLUMNS, ROLES
from xai.reports.removal_tables import CLASSIFICATION, DRAWN, FAITHFULNESS, POINTING, RANKED, removal_tables
from xai.reports.tables import Table, describe
from xai.results import Result
from xai.stages.context import Lab

REPORT = "report.html"

_TABLES = {
    "Faithfulness and localisation": (*FAITHFULNESS, *POINTING),
    "Least and most influential first": (*RANKED, *DRAWN),
    "The explainer as a classifier": CLASSIFICATION,
}
"""Tables 1 to 4 of the paper; 2 and 3 are one here."""
_NAMED = 6
"""How many claims that do not hold the summary names; the list below it has all."""


def present(
    lab: Lab, output: Path, pictures: Pictures | None, command: str, notes: Mapping[str, str] | None = None
) -> None:
    """Print what a run of SALVAGE and its rivals gave, and write tables, claims, figures and the page into its folder.

    Args:
        lab: The bench it was made at.
        output: The folder of the run; its rows lie under `results`, those trained for a share of the time under
            `length`.
        pictures: Images and their maps to show, None for none.
        command: What was typed.
        notes: What else the page is to keep: by name, its text.

    Raises:
        UserError: There are no results, or what lies there is no table.
    """
    evidence = read_evidence([output])
    results = [row.result for row in evidence.rows]
    tables, findings = _tables(results), judge(evidence)
    drawn, missing = draw_all(evidence)
    sheet = None if pictures is None else picture_sheet(pictures)
    _print(tables, findings, missing)
    _write_tables(output, results, tables, findings)
    _write_figures(output / "figures", {name: png for name, _, png in drawn} | ({"pictures": sheet} if sheet else {}))
    sections = [
        Section("The tables", [TableBlock(table) for table in tables]),
        Section("The claims", [Fragment(claims_as_html(findings))]),
        Section("The figures", _figures(drawn, missing)),
        Section("What the maps look like", [_sheet(sheet, pictures)]),
        Section("Rows and metrics", [Definitions(_glossary(results))]),
        Section("How this was made", [Code(command), Definitions([*(notes or {}).items(), *_notes(lab, results)])]),
    ]
    page = write_report(output / REPORT, "Explanations by removal", _summary(findings), sections, describe(results))
    _log(lab, results)
    store = os.path.relpath(lab.store.root)
    console.print(f"\nstore: {lab.store.summary()} ({escape(store)})", highlight=False, soft_wrap=True)
    console.print(f"report: [bold]{escape(os.path.relpath(page))}[/]", highlight=False, soft_wrap=True)


def _print(tables: Sequence[Table], findings: Sequence[Finding], missing: Sequence[str]) -> None:
    for table in tables:
        console.print(renderers.as_rich(table, console.width))
    if findings:
        console.print(claims_as_rich(findings))
    for line in missing:
        console.print(f"not drawn: {line}", markup=False)


def _write_tables(
    output: Path, results: Sequence[Result], tables: Sequence[Table], findings: Sequence[Finding]
) -> None:
    (everything, *_) = removal_tables(results, list(COLUMNS))
    write_atomically(output / "table.md", "\n".join(map(renderers.as_markdown, tables)).encode())
    write_atomically(output / "table.csv", renderers.as_csv(everything).encode())
    write_atomically(output / "claims.md", claims_as_markdown(findings).encode())


def _write_figures(folder: Path, figures: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in figures.items():
        write_atomically(folder / f"{name}.png", png)


def _tables(results: Sequence[Result]) -> list[Table]:
    """Those that some result has a metric of."""
    measured = {name for result in results for name in result.metrics}
    wanted = {title: metrics for title, metrics in _TABLES.items() if measured & set(metrics)}
    return [
        replace(table, title=f"{title} · {table.title}")
        for title, metrics in wanted.items()
        for table in removal_tables(results, metrics)
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


def _sheet(sheet: bytes | None, pictures: Pictures | None) -> Block:
    if sheet is None or pictures is None:
        return Prose(["No picture was asked for."])
    rows = ", ".join(ROLES[role].label for role in pictures.maps)
    alt = f"{len(pictures.images)} images, each with the maps of {rows}."
    caption = (
        "Evidence for the class under the image: red is more than the map's mean, blue less, grey says nothing. ✓: the "
        "classifier is right; where it is wrong (✗), the map of what it predicts stands above that of the true class. "
        "Attention and Eigen-CAM know no classes and give the same map twice."
    )
    return Picture(sheet, alt, caption, 90 * (len(pictures.maps) + 1))


def _glossary(results: Sequence[Result]) -> list[tuple[str, str]]:
    present = {result.role for result in results}
    measured = {name for result in results for name in result.metrics}
    rows = [(role.label, role.explanation) for role in ROLES.values() if role.name in present]
    return rows + [(f"{c.label} {c.arrow}", c.explanation) for c in COLUMNS.values() if c.name in measured]


def _notes(lab: Lab, results: Sequence[Result]) -> list[tuple[str, str]]:
    lineage = results[0].lineage
    versions = ", ".join(f"{name} {version}" for name, version in lineage.get("versions", {}).items())
    seconds = sum(artifact.seconds for artifact in (*lab.store.made, *lab.store.found))
    images = " or ".join(f"{n:,}" for n in sorted({result.n_images for result in results}))
    return [
        ("images measured", images),
        ("time to make everything", f"{seconds:.0f} s"),
        ("peak memory", f"{max(result.peak_memory_bytes for result in results) / 2**20:,.0f} MiB"),
        ("device", str(lab.trainer.device)),
        ("precision", lab.trainer.precision),
        ("versions", versions),
        ("commit", str(lineage.get("commit", "unknown"))),
    ]


def _log(lab: Lab, results: Sequence[Result]) -> None:
    if not lab.logger:
        return
    lab.logger.log_metrics({f"result/{r.role}/{name}": value for r in results for name, value in r.metrics.items()})
    lab.logger.finalize("success")
