"""Sheets: text in rows and columns, for a terminal, as Markdown and as HTML; tables and claims are shown as sheets."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jinja2
import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from xai.report.layout import Cell, Row, Symbol, Table
from xai.study.claims import FAILS, HOLDS, NOT_MEASURED, RULE, UNDECIDED
from xai.study.columns import COSTS, Column, arrow, column_of, number, points, three_digits

SIGNS = {HOLDS: "✓", FAILS: "✗", UNDECIDED: "?", NOT_MEASURED: "–"}
_LEGEND = ", ".join(f"{sign} {verdict}" for verdict, sign in SIGNS.items()) + "."
_TALLY = {
    HOLDS: ("holds", "hold"),
    FAILS: ("does not hold", "do not hold"),
    UNDECIDED: ("undecided", "undecided"),
    NOT_MEASURED: ("not measured", "not measured"),
}
"""What is said of one comparison with a verdict, and of several."""
_COSTS_NOTE = (
    "Passes are those of the explained classifier or the explainer, forward; a backward pass counts as two. Training "
    "is not in the time of an image, and the time is that of the device on which it was made."
)
_NAMES = 20
"""Characters of a name on one line, where there is little room."""
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")
_STYLES = {"best": "bold underline", "tied": "bold", HOLDS: "green", FAILS: "red", UNDECIDED: "yellow"}


@dataclass(frozen=True)
class Entry:
    """What stands in one place: a text, what follows it in small print, and what sets it apart (a mark or verdict)."""

    text: str
    small: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """A row: leading texts, then entries; `about` is its tooltip."""

    names: tuple[str, ...]
    entries: tuple[Entry, ...]
    key: str = ""
    about: str = ""
    symbol: Symbol | None = None
    highlighted: bool = False


@dataclass(frozen=True)
class Part:
    """Lines under one heading."""

    heading: str
    lines: tuple[Line, ...]
    muted: bool = False


@dataclass(frozen=True)
class Sheet:
    """Parts under common headings; the first `leading` headings are those of names.

    Attributes:
        title: Above it.
        head: Heading and tooltip of each column.
        leading: How many columns hold names.
        parts: From top to bottom.
        notes: Below it.
        columns: Names of the metrics below the headings that are none of names, where they are such.
    """

    title: str
    head: tuple[tuple[str, str], ...]
    leading: int
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def has_symbols(self) -> bool:
        """Whether there is a column for parameters."""
        return any(line.symbol for part in self.parts for line in part.lines)


def sheet_of(table: Table) -> Sheet:
    """A table as text."""
    head = (("", ""), *((f"{c.label} {arrow(c)}".strip(), _tooltip(c)) for c in table.columns))
    parts = tuple(
        Part(section.heading, tuple(_line(row, table) for row in section.rows), section.muted)
        for section in table.sections
    )
    return Sheet(table.title, head, 1, parts, table.notes, tuple(column.name for column in table.columns))


def claim_sheets(claims: pd.DataFrame, columns: Mapping[str, Column]) -> list[Sheet]:
    """For each data set the claims of one heading as a grid of rows and metrics, and the others one a line."""
    sheets = []
    for where, mine in claims.groupby("where", sort=False) if len(claims) else ():
        for heading, part in mine[mine["heading"] != ""].groupby("heading", sort=False):
            if (part["verdict"] == NOT_MEASURED).all():
                continue
            sheets.append(_grid(f"{heading} · {where}", part, columns))
        others = mine[mine["heading"] == ""].to_dict("records")
        if others:
            head = tuple((name, "") for name in ("Claim", "Paper", "Difference [95 %]", "Verdict"))
            lines = tuple(_claim_line(each, column_of(each["metric"], columns)) for each in others)
            sheets.append(Sheet(f"Claims · {where}", head, 2, (Part("", lines),)))
    return sheets


def claim_notes(claims: pd.DataFrame) -> list[str]:
    """How many claims came out which way, what keeps them open, and how a verdict is reached; nothing of no claims."""
    if claims.empty:
        return []
    counts = {verdict: int((claims["verdict"] == verdict).sum()) for verdict in _TALLY}
    tally = ", ".join(f"{count} {_TALLY[verdict][count != 1]}" for verdict, count in counts.items())
    told = [
        f"{str(verdict).capitalize()}: {why} {', '.join(lacks.unique())}".strip() + "."
        for (verdict, why), lacks in claims[claims["why"] != ""].groupby(["verdict", "why"], sort=False)["lacks"]
    ]
    return [f"Of {len(claims)} comparison{'s' * (len(claims) != 1)}: {tally}.", _LEGEND, *told, RULE]


def cost_sheets(costs: pd.DataFrame) -> list[Sheet]:
    """What a map of each row costs, cheapest first, means over runs; rows of which nothing is known are left out."""
    names = [name for name in COSTS if name in costs and costs[name].notna().any()]
    if not names:
        return []
    means = costs.groupby(["explainer", "label"], sort=False, dropna=False)[names].mean().dropna(how="all")
    means = means.sort_values("milliseconds" if "milliseconds" in means else names[0], kind="stable").reset_index()
    lines = tuple(
        Line((str(line["label"]),), tuple(Entry(three_digits(line[name])) for name in names), line["explainer"])
        for line in means.to_dict("records")
    )
    head = (("", ""), *((COSTS[name].label, COSTS[name].about) for name in names))
    return [Sheet("Costs", head, 1, (Part("", lines),), (_COSTS_NOTE,))]


def as_rich(sheet: Sheet, width: int) -> Group:
    """For a terminal of `width` characters: where columns do not fit side by side, one band of them below the other.

    Nothing is cut off. What is in small print goes on a line of its own first, and names wrap between words.
    """
    flat = _width(sheet) <= width
    bands = [sheet] if flat or sheet.leading > 1 else _bands(sheet, width)
    title = [Text(sheet.title, style="bold")] * bool(sheet.title)
    notes = (Text(note, style="dim") for note in sheet.notes)
    return Group(*title, *(_printed(band, flat) for band in bands), *notes)


def _printed(sheet: Sheet, flat: bool) -> RichTable:
    printed = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1 if flat else 0), pad_edge=False, collapse_padding=True)
    narrow = not flat and sheet.leading == 1
    for position, (name, _) in enumerate(sheet.head):
        left = position < sheet.leading
        # Of names whole words, of numbers everything.
        least = _name_width(sheet) if left and narrow else None
        printed.add_column(
            name.replace(" ", "\n") if narrow else name,
            justify="left" if left else "right",
            min_width=least,
            max_width=least,
            no_wrap=narrow and not left,
            overflow="fold",
        )
        if position == 0 and sheet.has_symbols:
            printed.add_column("Param.", no_wrap=True)
    for position, part in enumerate(sheet.parts):
        if position:
            printed.add_section()
        for line in part.lines:
            symbol = [Text(line.symbol.text if line.symbol else "")] * sheet.has_symbols
            names = [Text(name, style="bold" if line.highlighted else "") for name in line.names]
            cells = (_rich_entry(entry, flat) for entry in line.entries)
            printed.add_row(names[0], *symbol, *names[1:], *cells, style="dim" if part.muted else "")
    return printed


def _bands(sheet: Sheet, width: int) -> list[Sheet]:
    """The same rows with as many columns as fit into `width`, and then with the next ones."""
    lines = [line for part in sheet.parts for line in part.lines]
    texts = zip(*(line.entries for line in lines), strict=True) if lines else ([] for _ in sheet.head[1:])
    needed = [
        max([*map(len, head.split()), *(len(text) for e in column for text in (e.text, f"±{e.small}" * bool(e.small)))])
        for (head, _), column in zip(sheet.head[1:], texts, strict=True)
    ]
    room = width - _name_width(sheet) - (12 if sheet.has_symbols else 0)
    bands: list[list[int]] = [[]]
    for column, size in enumerate(needed):
        if bands[-1] and sum(needed[one] + 1 for one in bands[-1]) + size + 1 > room:
            bands.append([])
        bands[-1].append(column)
    return [_with_columns(sheet, band) for band in bands]


def _with_columns(sheet: Sheet, columns: Sequence[int]) -> Sheet:
    def shown(line: Line) -> Line:
        return replace(line, entries=tuple(line.entries[column] for column in columns))

    parts = tuple(replace(part, lines=tuple(map(shown, part.lines))) for part in sheet.parts)
    return replace(sheet, head=(sheet.head[0], *(sheet.head[1 + column] for column in columns)), parts=parts)


def _name_width(sheet: Sheet) -> int:
    """What a name may take of a narrow terminal: no more than it needs, and no less than its longest word."""
    names = [name for part in sheet.parts for line in part.lines for name in line.names[:1]]
    return max(min(max(map(len, names), default=1), _NAMES), *(len(word) for name in names for word in name.split()), 1)


def as_markdown(sheet: Sheet) -> str:
    """A pipe table with the notes under it; the best value is bold and underlined where `ins` is rendered."""
    return templates().get_template("sheet.md.j2").render(sheet=sheet)


@cache
def templates() -> jinja2.Environment:
    """The templates of tables and pages; what they are filled with is escaped in HTML."""
    loader = jinja2.PackageLoader("xai.report")
    escaped = jinja2.select_autoescape(["html.j2"])
    made = jinja2.Environment(
        loader=loader, autoescape=escaped, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    made.filters |= {"cell": _in_markdown, "no_html": lambda text: _TAG.sub(r"\\<", text)}
    return made


def _in_markdown(text: str) -> str:
    """Text of a cell of Markdown's: it ends no cell and no line, and is neither HTML, nor code, nor a link."""
    return re.sub(r"([\\|<`]|\](?=\())", r"\\\1", " ".join(text.split()))


def _tooltip(column: Column) -> str:
    known = [f"Chance: {column.chance:g}."] if isinstance(column.chance, int | float) else []
    return " ".join([column.about, *known, *([f"Control: {column.control}."] if column.control else [])]).strip()


def _line(row: Row, table: Table) -> Line:
    entries = (_entry(cell, n, table.spread) for cell, n in zip(row.cells, table.after_point, strict=True))
    return Line((row.label,), tuple(entries), row.name, row.about, row.symbol, row.highlighted)


def _entry(cell: Cell, digits: int, spread: str) -> Entry:
    around = cell.shown_spread(spread)
    return Entry(number(cell.mean, digits), "" if math.isnan(around) else number(around, digits), cell.mark)


def _grid(title: str, claims: pd.DataFrame, columns: Mapping[str, Column]) -> Sheet:
    shown = {name: column_of(name, columns) for name in claims["metric"].unique()}
    of = {(each["above"], each["below"], each["metric"]): each for each in claims.to_dict("records")}
    # What was not measured at all is named below, once.
    there = claims[claims["verdict"] != NOT_MEASURED].drop_duplicates(["above", "below"])
    lines = []
    for (above, below, label), several in zip(
        there[["above", "below", "label"]].itertuples(index=False), there["below"].duplicated(keep=False), strict=True
    ):
        entries = (_claim_entry(of.get((above, below, name)), column) for name, column in shown.items())
        # A row that several are held against has a line for each of them.
        lines.append(Line((f"{above} less {label}" if several else label,), tuple(entries), below))
    head = (("", ""), *((f"{column.label} {arrow(column)}".strip(), column.about) for column in shown.values()))
    return Sheet(title, head, 1, (Part("", tuple(lines)),))


def _claim_entry(claim: Mapping[Any, Any] | None, column: Column) -> Entry:
    if claim is None or claim["verdict"] == NOT_MEASURED:
        return Entry(SIGNS[NOT_MEASURED], mark=NOT_MEASURED if claim else "")
    return Entry(f"{points(claim['difference'], column)} {SIGNS[claim['verdict']]}", mark=claim["verdict"])


def _claim_line(claim: Mapping[Any, Any], column: Column) -> Line:
    mean, low, high = (points(claim[name], column) for name in ("difference", "low", "high"))
    text = mean if pd.isna(claim["low"]) else f"{mean} [{low}, {high}]"
    verdict = Entry(f"{claim['verdict']} {SIGNS[claim['verdict']]}", mark=claim["verdict"])
    return Line((claim["claim"], claim["paper"]), (Entry(text), verdict))


def _rich_entry(entry: Entry, flat: bool) -> Text:
    # Appended, so that the line under a number does not run on under the blanks that align it.
    text = Text().append(entry.text, style=_STYLES.get(entry.mark, ""))
    if entry.small:
        text.append(f" ±{entry.small}" if flat else f"\n±{entry.small}", style="dim")
    return text


def _width(sheet: Sheet) -> int:
    """Characters with each entry on one line."""
    widths = [len(name) for name, _ in sheet.head]
    for line in (line for part in sheet.parts for line in part.lines):
        texts = [*line.names, *(f"{e.text} ±{e.small}" if e.small else e.text for e in line.entries)]
        widths = [max(width, len(text)) for width, text in zip(widths, texts, strict=True)]
    return sum(2 + width for width in widths) + 12 * sheet.has_symbols
