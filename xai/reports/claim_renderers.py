"""Claims and their verdicts for a terminal, as Markdown and as HTML: the same numbers each time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from xai.reports.claims import RULE, Finding
from xai.reports.renderers import UNDEFINED, number

SIGNS = {"holds": "✓", "does not hold": "✗", "undecided": "?"}
_STYLES = {"✓": "green", "✗": "red", "?": "yellow"}
_LEGEND = "✓ holds, ✗ does not hold, ? undecided. Differences are in percentage points."


@dataclass(frozen=True)
class Grid:
    """A table of text with a heading row; the first `names` columns are left-aligned."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1


def grids(findings: Sequence[Finding]) -> list[Grid]:
    """For each data set one row less each other by metric, as the claims say, and the other claims one a row."""
    shown = []
    for data in dict.fromkeys(finding.data for finding in findings):
        mine = [finding for finding in findings if finding.data == data]
        titles = dict.fromkeys(f.claim.cell.grid for f in mine if f.claim.cell)
        shown += [*(_against_others(title, data, mine) for title in titles), _others(data, mine)]
    return [grid for grid in shown if grid.rows]


def tally(findings: Sequence[Finding]) -> str:
    """How many claims came out which way, in a sentence."""
    counts = [sum(finding.verdict == verdict for finding in findings) for verdict in SIGNS]
    return (
        f"Of {len(findings)} claims {counts[0]} hold{'s' * (counts[0] == 1)}, {counts[1]} do"
        f"{'es' * (counts[1] == 1)} not hold, {counts[2]} {'is' if counts[2] == 1 else 'are'} undecided."
    )


def claims_as_rich(findings: Sequence[Finding]) -> Group:
    """Compact, for a terminal of 100 characters or more."""
    parts: list[RichTable | Text] = []
    for grid in grids(findings):
        printed = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for position, name in enumerate(grid.head):
            printed.add_column(name, justify="left" if position < grid.names else "right")
        for row in grid.rows:
            printed.add_row(*(Text(cell, style=_STYLES.get(cell[-1:], "")) for cell in row))
        parts += [Text(grid.title, style="bold"), printed]
    return Group(*parts, Text(f"{tally(findings)} {_LEGEND}\n{RULE}", style="dim"))


def claims_as_markdown(findings: Sequence[Finding]) -> str:
    """The same, and below it each claim with both intervals."""
    parts = ["# Claims", tally(findings), _LEGEND, RULE]
    for grid in [*grids(findings), _details(findings)]:
        lines = [
            grid.head,
            ["---" if position < grid.names else "---:" for position in range(len(grid.head))],
            *grid.rows,
        ]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts += [f"## {grid.title}", text]
    return "\n\n".join(parts) + "\n"


def claims_as_html(findings: Sequence[Finding]) -> Markup:
    """`table` elements in boxes of their own, and the rule under them."""
    tables = Markup()
    for grid in grids(findings):
        head = Markup().join(Markup('<th scope="col">{}</th>').format(name) for name in grid.head)
        rows = Markup().join(
            Markup('<tr><th scope="row">{}</th>{}</tr>').format(
                row[0], Markup().join(Markup("<td>{}</td>").format(cell.replace("-", "−")) for cell in row[1:])
            )
            for row in grid.rows
        )
        tables += Markup(
            '<div class="scroll" role="region" tabindex="0" aria-label="{title}"><table><caption>{title}</caption>'
            "<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        ).format(title=grid.title, head=head, rows=rows)
    return tables + Markup('<div class="notes"><p>{} {}</p><p>{}</p></div>').format(tally(findings), _LEGEND, RULE)


def _against_others(title: str, data: str, findings: Sequence[Finding]) -> Grid:
    of = {(c.row, c.column): f for f in findings if (c := f.claim.cell) and c.grid == title}
    columns = tuple(dict.fromkeys(column for _, column in of))
    rows = tuple(
        (name, *(_cell(of.get((name, column))) for column in columns)) for name in dict.fromkeys(name for name, _ in of)
    )
    return Grid(f"{title} · {data}", ("", *columns), rows)


def _others(data: str, findings: Sequence[Finding]) -> Grid:
    rows = tuple(
        (f.claim.text, f.claim.source, _difference(f), f"{f.verdict} {SIGNS[f.verdict]}")
        for f in findings
        if f.claim.cell is None
    )
    return Grid(f"Other claims · {data}", ("Claim", "Paper", "Difference [95 %]", "Verdict"), rows, 2)


def _details(findings: Sequence[Finding]) -> Grid:
    head = ("Claim", "Paper", "Data", "Over seeds", "Seeds", "Over images", "Images", "Verdict")
    rows = tuple(
        (
            f.claim.text,
            f.claim.source,
            f.data,
            _with_interval(f.mean, f.interval),
            str(len(f.by_seed)),
            _with_interval(f.over_images[0], f.over_images[1:]),
            str(f.images) if f.images else UNDEFINED,
            f.verdict,
        )
        for f in findings
    )
    return Grid("Each claim with its numbers", head, rows, 3)


def _cell(finding: Finding | None) -> str:
    return UNDEFINED if finding is None else f"{_points(finding.mean)} {SIGNS[finding.verdict]}"


def _difference(finding: Finding) -> str:
    """With the interval that decided it."""
    return _with_interval(finding.mean, finding.over_images[1:] if finding.images else finding.interval)


def _with_interval(mean: float, interval: tuple[float, ...]) -> str:
    if any(map(math.isnan, interval)):
        return _points(mean)
    return f"{_points(mean)} [{', '.join(map(_points, interval))}]"


def _points(value: float) -> str:
    text = number(100 * value, 1)
    return text if math.isnan(value) or text.startswith("-") or float(text) == 0 else f"+{text}"
