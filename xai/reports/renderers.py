"""A table as terminal output, Markdown, CSV, HTML and JSON rows: the same numbers each time."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from xai.reports.columns import Column
from xai.reports.tables import Cell, Row, Table

DIGITS = 3
UNDEFINED = "–"
_NO_BREAK = "\N{NON-BREAKING HYPHEN}"
_ROOMY = 132
"""Characters that the long form of the table needs in a terminal with every metric and deviations."""


def number(value: float, digits: int = DIGITS) -> str:
    """A value with a fixed number of digits, a dash where it is undefined; no negative zero."""
    if math.isnan(value):
        return UNDEFINED
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def cell_text(cell: Cell, digits: int = DIGITS) -> str:
    """Mean and deviation, or the mean alone where there is no deviation."""
    mean = number(cell.mean, digits)
    return mean if math.isnan(cell.deviation) else f"{mean} ± {number(cell.deviation, digits)}"


def as_rich(table: Table, width: int = 80) -> Group:
    """For a terminal of `width` characters.

    The long form where it fits with each cell on one line, or on two in 132 characters; else with short names and
    without symbols, which fits 80.
    """
    flat = _width(table) <= width
    roomy = flat or width >= _ROOMY
    symbols = roomy and _has_symbols(table)
    names = [row.role.label if roomy else row.role.short for row in table.rows]
    printed = RichTable(box=box.SIMPLE_HEAD, padding=(0, int(roomy)), pad_edge=False, collapse_padding=True)
    # The longest name is the width, or the heading of a published block would take the room of the numbers.
    printed.add_column("", width=max(map(len, names)))
    if symbols:
        printed.add_column("Param.", no_wrap=True)
    for column in table.columns:
        name = column.label if roomy else column.short
        printed.add_column(f"{name} {column.arrow}" if roomy else f"{name}\n{column.arrow}", justify="right")
    for position, block in enumerate(table.blocks):
        if position:
            printed.add_section()
        if block.kind == "published" and block.heading:
            printed.add_row(Text(block.heading, style="italic"))
        for row in block.rows:
            lead = [Text(row.role.label if roomy else row.role.short)]
            lead += [Text(row.role.symbol.text if row.role.symbol else "")] * symbols
            style = "dim" if block.kind in ("control", "chance", "published") else ""
            cells = zip(row.cells, table.columns, strict=True)
            printed.add_row(*lead, *(_rich_cell(cell, column.digits, flat) for cell, column in cells), style=style)
    title = [Text(table.title, style="bold")] * bool(table.title)
    # Not the caption of the table, which would be wrapped to the width of a narrow one.
    return Group(*title, printed, *(Text(note, style="dim") for note in table.notes))


def as_markdown(table: Table) -> str:
    """A pipe table with the notes under it; the best value is bold and underlined where `ins` is rendered."""
    symbols = _has_symbols(table)
    head = ["", *["Param."] * symbols, *(f"{column.label} {column.arrow}" for column in table.columns)]
    lines = [head, ["---" if position <= symbols else "---:" for position in range(len(head))]]
    for block in table.blocks:
        if block.kind == "published" and block.heading:
            lines.append([f"*{_no_pipe(block.heading)}*", *[""] * (len(head) - 1)])
        for row in block.rows:
            symbol = [row.role.symbol.latex if row.role.symbol else ""] * symbols
            cells = zip(row.cells, table.columns, strict=True)
            lines.append([_no_pipe(row.role.label), *symbol, *(_markdown_cell(cell, c.digits) for cell, c in cells)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([f"**{_no_pipe(table.title)}**"] * bool(table.title) + [text, *table.notes]) + "\n"


def as_rows(table: Table) -> list[dict[str, Any]]:
    """Plain values for JSON: one dict a row, None where undefined."""
    return [
        {
            "block": block.kind,
            "role": row.role.name,
            "label": row.role.label,
            "runs": row.runs,
            "metrics": {
                column.name: {
                    "mean": _or_none(cell.mean),
                    "deviation": _or_none(cell.deviation),
                    "n": cell.n,
                    "mark": cell.mark,
                }
                for column, cell in zip(table.columns, row.cells, strict=True)
            },
        }
        for block in table.blocks
        for row in block.rows
    ]


def as_csv(table: Table) -> str:
    """One line a row, three columns a metric (mean, deviation or interval, mark), in full precision.

    What is undefined is left empty. The interval is half of it, as behind the ± of the table.
    """
    head = ["block", "role", "label", "runs"]
    for column in table.columns:
        head += [column.name, f"{column.name}_{table.spread}", f"{column.name}_mark"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for row in as_rows(table):
        cells = [cell[key] for cell in row["metrics"].values() for key in ("mean", "deviation", "mark")]
        writer.writerow([row["block"], row["role"], row["label"], row["runs"], *cells])
    return file.getvalue()


def as_html(table: Table) -> Markup:
    """A `table` element in a box of its own that scrolls sideways, with the notes under it.

    Hooks for style: the class of a `tbody` is the kind of its block, that of a `tr` the name of its role or `heading`;
    `strong.best`, `strong`, `.deviation` and `.symbol` are inside the cells.
    """
    symbols = _has_symbols(table)
    columns = Markup().join(
        Markup('<th scope="col"><abbr title="{}">{}</abbr>&nbsp;{}</th>').format(
            c.explanation, c.label.replace("-", _NO_BREAK), c.arrow
        )
        for c in table.columns
    )
    body = Markup()
    for block in table.blocks:
        heading = Markup('<tr class="heading"><th scope="rowgroup" colspan="{}"><span>{}</span></th></tr>').format(
            len(table.columns) + 1 + symbols, block.heading
        )
        rows = Markup().join(_html_row(row, symbols, table.columns) for row in block.rows)
        body += Markup('<tbody class="{}">{}{}</tbody>').format(block.kind, heading if block.heading else "", rows)
    notes = Markup().join(Markup("<p>{}</p>").format(note) for note in table.notes)
    head = Markup('<th scope="col"></th>') + Markup('<th scope="col" class="symbol">Param.</th>') * symbols + columns
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="{title}"><table><caption>{title}</caption>'
        '<thead><tr>{head}</tr></thead>{body}</table></div><div class="notes">{notes}</div>'
    ).format(title=table.title or "Results", head=head, body=body, notes=notes)


def _has_symbols(table: Table) -> bool:
    return any(row.role.symbol for row in table.rows)


def _width(table: Table) -> int:
    """Characters that the long form takes with mean and deviation of each cell on one line."""
    widths = [max(len(row.role.label) for row in table.rows), 12 * _has_symbols(table)]
    for index, column in enumerate(table.columns):
        texts = [f"{column.label} {column.arrow}", *(cell_text(row.cells[index], column.digits) for row in table.rows)]
        widths.append(max(map(len, texts)))
    return sum(2 + width for width in widths)


def _rich_cell(cell: Cell, digits: int, flat: bool) -> Text:
    style = {"best": "bold underline", "tied": "bold"}.get(cell.mark, "")
    # Appended, so that the line under a number does not run on under the blanks that align it.
    text = Text().append(number(cell.mean, digits), style=style)
    if not math.isnan(cell.deviation):
        spread = number(cell.deviation, digits)
        # Else on a line of its own, and without the zero, so that ten columns fit a terminal.
        text.append(f" ±{spread}" if flat else "\n±" + spread.removeprefix("0"), style="dim")
    return text


def _markdown_cell(cell: Cell, digits: int) -> str:
    pattern = {"best": "**<ins>{}</ins>**", "tied": "**{}**"}.get(cell.mark, "{}")
    return pattern.format(cell_text(cell, digits))


def _html_row(row: Row, symbols: bool, columns: Sequence[Column]) -> Markup:
    symbol = row.role.symbol.mathml if row.role.symbol else Markup()
    name = Markup('<th scope="row" title="{}">{}</th>').format(row.role.explanation, row.role.label)
    name += Markup('<td class="symbol">{}</td>').format(symbol) * symbols
    cells = Markup().join(
        Markup("<td>{}</td>").format(_html_cell(cell, column.digits))
        for cell, column in zip(row.cells, columns, strict=True)
    )
    return Markup('<tr class="{}">{}{}</tr>').format(row.role.name, name, cells)


def _html_cell(cell: Cell, digits: int) -> Markup:
    patterns = {"best": '<strong class="best"><u>{}</u></strong>', "tied": "<strong>{}</strong>"}
    mean = Markup(patterns.get(cell.mark, "{}")).format(number(cell.mean, digits).replace("-", "−"))
    if math.isnan(cell.deviation):
        return mean
    return Markup('{} <span class="deviation">±&nbsp;{}</span>').format(mean, number(cell.deviation, digits))


def _no_pipe(text: str) -> str:
    return text.replace("|", "\\|")


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
