"""What papers claim, beside what was measured here: docs/results.md, made of docs/papers.yaml and of results of sweeps.

Of a claim docs/papers.yaml says what the paper says and prints, and which comparison of which sweep asks for it.
Verdict, difference, interval, seeds and images are those of the sweep's results; where there are none, it says that it
was not run, and no number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from xai.core.composing import config_file
from xai.core.errors import UserError
from xai.core.settings import build
from xai.metrics import registry as metrics
from xai.metrics.registry import Column
from xai.report.layout import read_table
from xai.report.results import Origin, read_values
from xai.report.sheets import SIGNS
from xai.study.claims import NOT_MEASURED, RULE, read_yaml
from xai.study.columns import UNDEFINED, after_point, arrow, column_of, number, points, scale

NOT_RUN = "not run at this scale"
_HEAD = ("Claim", "Where", "The paper", "Here", "Difference [95 %]", "Verdict", "Seeds, images", "Controls")
_OWN = ("Claim", "Here", "Difference [95 %]", "Verdict", "Seeds, images")
_PAIR = ("Here", "Ours", "Against", "Seeds, images")
_INTRODUCTION = """# What the papers claim, and what holds here

Made by `make docs-tables` of papers.yaml, which has what each paper says and prints, and of the measured results in the
folders of `docs/results/`, one a sweep; not written by hand. What the papers measured with large models on large data
sets is asked here of small models, trained from nothing on a CPU, on small real images: "holds" says that the claim is
seen in that setting, "does not hold" that the contrary is, whatever may be so in the paper's. Figures of a paper are
those it prints.

"""
_SIGNS = (
    "✓ ahead of it, ✗ behind it, ? undecided. A number is the difference, its 95 % interval in brackets; where less is "
    "better (↓), what is ahead has a negative one."
)
_EARLIER = (
    "Measured before that was the rule, with an image counted once for each seed that has it, so that intervals over "
    "images are too narrow (at most by a factor of the root of the number of seeds): "
)


@dataclass(frozen=True)
class Item:
    """A claim of a paper.

    Args:
        says: In words.
        where: In the paper.
        printed: Figures that the paper prints; empty: it prints none.
        sweep: Whose results are asked; empty: none at this scale.
        metric: Of the comparison, as the results have it.
        above: The row that is claimed to be ahead.
        below: The row that it is ahead of.
        than: The metric of `below`, where it is another one.
        claim: The whole text of the claim, in place of metric and rows.
        data: Data sets to be told of; empty: all that there are.
        controls: Rows that could do as well for another reason; `above` is compared with them in the same metric.
        note: What else is to be known.
    """

    says: str
    where: str
    printed: str = ""
    sweep: str = ""
    metric: str = ""
    above: str = ""
    below: str = ""
    than: str = ""
    claim: str = ""
    data: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Paper:
    """A paper.

    Args:
        title: Of its section.
        there: What the paper measured on.
        here: What was measured on here.
        claims: In the order of the paper.
        ours: Sweeps whose claims are this project's own.
        tried: What was tried and did not work, a line each.
        more: A page that says more.
    """

    title: str
    there: str
    here: str
    claims: list[Item]
    ours: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    more: str = ""


@dataclass(frozen=True)
class Papers:
    """All of them."""

    papers: list[Paper]


def read_papers(path: Path) -> Papers:
    """Read docs/papers.yaml.

    Raises:
        UserError: It is missing, or not of that form.
    """
    return build(Papers, read_yaml(path, "file of papers"), path.stem)


def page(papers: Papers, results: Path) -> str:
    """The page as Markdown.

    Args:
        papers: What is claimed.
        results: A folder of results for each sweep.

    Raises:
        UserError: A claim asks for a comparison that the results of its sweep do not have.
    """
    columns = metrics.columns()
    parts = [_section(paper, results, columns) for paper in papers.papers]
    sweeps = [each.parent for each in sorted(results.glob("*/about.yaml"))]
    earlier = [each.name for each in sweeps if _origin(each).rule != RULE]
    rule = f"{RULE}\n\n{_EARLIER}{', '.join(earlier)}." if earlier else RULE
    return f"{_INTRODUCTION}{rule}\n\n{_SIGNS}\n\n" + "\n".join(parts)


def _section(paper: Paper, results: Path, columns: Mapping[str, Column]) -> str:
    lines = [f"## {paper.title}", "", f"The paper: {paper.there} Here: {paper.here}", "", *_table(_HEAD)]
    for item in paper.claims:
        lines += _rows(item, results, columns)
    if paper.ours:
        lines += ["", "**Ours**, not the paper's:"]
    for sweep in paper.ours:
        lines += _own(sweep, results, columns)
    if paper.tried:
        lines += ["", "**Tried, and did not work:**", "", *(f"* {each}" for each in paper.tried)]
    sweeps = dict.fromkeys([*(item.sweep for item in paper.claims), *paper.ours])
    made = [f"* {_origin(results / sweep)}" for sweep in sweeps if sweep and (results / sweep).is_dir()]
    if made:
        lines += ["", "Measured by:", "", *made]
    if paper.more:
        lines += ["", f"[More, and why]({paper.more})."]
    return "\n".join([*lines, ""])


def _table(head: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') or UNDEFINED for cell in cells)} |"


def _rows(item: Item, results: Path, columns: Mapping[str, Column]) -> list[str]:
    """A line for each data set that the claim was judged on; one that says so where it was not."""
    said = item.says + f" {item.note}" * bool(item.note)
    if not item.sweep or not (results / item.sweep).is_dir():
        told = NOT_RUN + (f" (`sweep={item.sweep}`)" if item.sweep else "")
        return [_line((said, item.where, item.printed, "", "", told, "", ""))]
    claims, cells = (read_values(results / item.sweep / f"{name}.csv") for name in ("claims", "tables"))
    found = claims[_asked(claims, item)] if len(claims) else claims
    if item.data and len(found):
        words = [set(str(where).replace(",", "").split()) for where in found["where"]]
        found = found[[not each.isdisjoint(item.data) for each in words]]
    if found.empty:
        asked = item.claim or f"{item.metric}, {item.above}, {item.below}"
        raise UserError(f"{item.says!r}: the results of {item.sweep} have no comparison of {asked}")
    lines = []
    for line in found.to_dict("records"):
        column = column_of(str(line["metric"]), columns)
        lines.append(
            _line(
                (
                    said,
                    item.where,
                    item.printed,
                    _here(cells, line, column, columns),
                    _difference(line, column),
                    _verdict(line),
                    _counts(line),
                    _controls(claims, line, item.controls, column),
                )
            )
        )
    return lines


def _asked(claims: pd.DataFrame, item: Item) -> "pd.Series[bool]":
    if item.claim:
        return claims["claim"] == item.claim
    same = (claims["metric"] == item.metric) & (claims["above"] == item.above) & (claims["below"] == item.below)
    return same & (claims["than"] == item.than)


def _own(sweep: str, results: Path, columns: Mapping[str, Column]) -> list[str]:
    """What a sweep says of claims of ours: a grid of what is ahead of what, and a list of the others."""
    if not (results / sweep).is_dir():
        return ["", f"`sweep={sweep}`: {NOT_RUN}."]
    claims, cells = (read_values(results / sweep / f"{name}.csv") for name in ("claims", "tables"))
    lines = claims[claims["paper"] == "ours"].to_dict("records") if len(claims) else []
    grid: dict[tuple[str, ...], dict[str, str]] = {}
    shown: dict[str, Column] = {}
    others = []
    for line in lines:
        column, pair = column_of(str(line["metric"]), columns), _pair(line, columns)
        if pair is None:
            here = _here(cells, line, column, columns)
            others.append(_line((str(line["claim"]), here, _difference(line, column), _verdict(line), _counts(line))))
            continue
        shown[column.name] = column
        why = f" ({line['why']})" * bool(line["why"])
        cell = f"{_difference(line, column)} {SIGNS[line['verdict']]}{why}"
        grid.setdefault((str(line["where"]), *pair, _counts(line)), {})[column.name] = cell
    told = ["", f"`sweep={sweep}`:"]
    if grid:
        head = (*_PAIR, *(f"{column.label} {arrow(column)}".strip() for column in shown.values()))
        told += ["", *_table(head)]
        told += [_line((*key, *(row.get(name, "") for name in shown))) for key, row in grid.items()]
    if others:
        told += ["", *_table(_OWN), *others]
    return told


def _pair(line: Mapping[Any, Any], columns: Mapping[str, Column]) -> tuple[str, str] | None:
    """The labels of what is ahead and of what it is ahead of, where a claim says that and was measured."""
    label = column_of(str(line["metric"]), columns).label
    above, ahead, below = str(line["claim"]).removesuffix(f" in {label}").partition(" is ahead of ")
    return (above, below) if ahead and below == line["label"] and line["verdict"] != NOT_MEASURED else None


def _here(cells: pd.DataFrame, line: Mapping[Any, Any], column: Column, columns: Mapping[str, Column]) -> str:
    """On what, and the two values that are compared; of a share or a correlation what it is."""
    told = _values(cells, line, column) if line["metric"] in columns else f": {line['metric']}"
    return f"{line['where']}{told}"


def _values(cells: pd.DataFrame, line: Mapping[Any, Any], column: Column) -> str:
    """The two values that are compared, where a table of the sweep has both."""
    if cells.empty or not line["below"] or line["than"]:
        return ""
    means = []
    for row in (line["above"], line["below"]):
        mine = cells[(cells["row"] == row) & (cells["column"] == line["metric"]) & cells["mean"].notna()]
        mine = mine[[str(title).endswith(f" · {line['where']}") for title in mine["title"]]]
        if mine.empty:
            return ""
        # A table that shows shares in percent is kept as it is shown.
        is_shown = read_table(config_file("table", str(mine["table"].iloc[0]))).percent
        factor = 1.0 if is_shown else scale(column)
        means.append(number(factor * float(mine["mean"].iloc[0]), after_point(column)))
    return f": {means[0]} against {means[1]}"


def _difference(line: Mapping[Any, Any], column: Column) -> str:
    if pd.isna(line["difference"]):
        return ""
    mean, low, high = (points(line[name], column) for name in ("difference", "low", "high"))
    return mean if pd.isna(line["low"]) else f"{mean} [{low}, {high}]"


def _verdict(line: Mapping[Any, Any]) -> str:
    why = " ".join(filter(None, (line["why"], line["lacks"])))
    return f"**{line['verdict']}**" + f" ({why})" * bool(why)


def _counts(line: Mapping[Any, Any]) -> str:
    if pd.isna(line["seeds"]):
        return ""
    images = line["n_images"]
    return f"{int(line['seeds'])}" + (f", {int(images)}" if pd.notna(images) and images else "")


def _controls(claims: pd.DataFrame, line: Mapping[Any, Any], controls: Sequence[str], column: Column) -> str:
    told = []
    for name in controls:
        found = claims[
            (claims["metric"] == line["metric"])
            & (claims["above"] == line["above"])
            & (claims["below"] == name)
            & (claims["where"] == line["where"])
        ]
        for each in found.drop_duplicates(["above", "below"]).to_dict("records"):
            if pd.notna(each["difference"]):
                told.append(f"{each['label']} {points(each['difference'], column)} {SIGNS[each['verdict']]}")
    return "; ".join(told)


def _origin(folder: Path) -> Origin:
    about = read_yaml(folder / "about.yaml", "file of results")
    about.pop("notes")
    return build(Origin, about, "about")
