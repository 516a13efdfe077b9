"""The pages of the site: what stands on each, and the files beside it."""

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from rich.filesize import decimal

from xai.core.entries import MANIFEST
from xai.core.errors import UserError, visible
from xai.core.files import short_name, write_atomically
from xai.metrics import registry as metrics
from xai.report import album, sheets, tuned
from xai.report.figures import Source, draw_all
from xai.report.layout import Reasons, Table, TableParams
from xai.report.present import source_of, tables_of, usual, verdicts
from xai.report.results import read_values
from xai.report.sheets import Sheet, templates
from xai.report.site.charts import chart_of
from xai.report.site.found import Run, is_plain, mapping
from xai.report.site.lineage import Lineage
from xai.report.site.values import as_json, as_script, chunks, rounded
from xai.report.tables import build_tables
from xai.study.claims import FAILS, HOLDS, NOT_MEASURED, UNDECIDED
from xai.study.columns import COSTS, column_of
from xai.study.frame import Frames, join, read_frames, settings_apart, told_apart

VERDICTS = (HOLDS, FAILS, UNDECIDED, NOT_MEASURED)
_ALL = "Everything that was measured"
_STYLES = ("site/site.css", "site/site.js")


@dataclass(frozen=True)
class Chart:
    """A figure that the browser draws: `content` is what `chart_of` gives; narrower than `width` it scrolls."""

    title: str
    width: int
    alt: str
    caption: str
    content: Mapping[str, Any]


@dataclass
class Page:
    """A page of a run or a sweep: its file is `<slug>.html`, and what belongs to it lies in the folder of that name.

    `tables` and `claims` are sheets, `notes` say how verdicts are reached, and `tally` how many came out which way.
    `pictures` are paths to sheets of maps, of a run that wrote no gallery, or to figures of what is no study; `links`
    lead to runs of a sweep, by label; `files` are those of the run: name, bytes, href. `data` is what the script knows
    of it, see `site.js`.
    """

    run: Run
    slug: str
    about: str = ""
    tables: list[Sheet] = field(default_factory=list)
    claims: list[Sheet] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tally: dict[str, int] = field(default_factory=dict)
    charts: list[Chart] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    files: list[tuple[str, str, str]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Of the page; what the file of a sweep calls it, else its folder."""
        called = mapping(self.run.runs[0].config.get("sweep")).get("title") if self.run.runs else None
        return visible(str(called or self.run.name))


class Site:
    """Writes pages into a folder.

    Args:
        output: The folder, while it is being written.
        final: Where it will stand; links to the files of runs start there.
        lineage: Of the artifacts in the stores.
    """

    def __init__(self, output: Path, final: Path, lineage: Lineage) -> None:
        self._output, self._final, self._lineage = output, final, lineage
        self._slugs: dict[str, str] = {}
        self._frames: dict[str, Frames] = {}

    def slug(self, name: str) -> str:
        """What the page of a run is called: letters that mean nothing in a link, and no two alike."""
        if name not in self._slugs:
            plain = short_name(re.sub(r"[^A-Za-z0-9._=-]+", "-", name).strip("-.") or "run", 120)
            taken = {each.lower() for each in (*self._slugs.values(), "index", "assets")}
            numbered = (plain if not number else f"{plain}-{number}" for number in range(len(taken) + 1))
            self._slugs[name] = next(each for each in numbered if each.lower() not in taken)
        return self._slugs[name]

    def page(self, run: Run) -> Page:
        """What the page of a run or a sweep shows; its further files are written."""
        page = Page(run, self.slug(run.name))
        (self._output / page.slug).mkdir()
        self._link(page)
        measured = [each for each in run.runs or (run,) if each.is_measured]
        if measured:
            self._show(page, measured)
        elif tuned.is_tuned(run.folder):
            try:
                chart = chart_of(tuned.figure_of(run.folder))
                page.charts = [Chart(tuned.TITLE, 560, tuned.ALT, tuned.CAPTION, chart)]
            except UserError as error:
                page.missing.append(str(error))
        # A sweep has no pictures of its own: those in its folder are of a run that had its name before.
        page.data |= {"slug": page.slug, "gallery": None if run.runs else self._gallery(run, page)}
        return page

    def _link(self, page: Page) -> None:
        run = page.run
        if run.runs:
            pages = (f"{self.slug(each.name)}.html" for each in run.runs)
            page.links = list(zip(run.called, pages, strict=True))
        page.files = [(name, decimal(size), self._link_to(run.folder / name)) for name, size in run.files.items()]

    def _show(self, page: Page, measured: Sequence[Run]) -> None:
        own: dict[str, Frames] = {}
        for each in measured:
            try:
                # The page of a sweep comes after those of its runs, which have been read then.
                if each.name not in self._frames:
                    self._frames[each.name] = read_frames(each.folder)
                own[each.name] = self._frames[each.name]
            except UserError as error:
                page.missing.append(str(error))
        if len(own) > 1:
            settings = settings_apart([each.asked for each in measured if each.name in own])
            own = dict(zip(own, told_apart(list(zip(settings, own.values(), strict=True))), strict=True))
        joint = join(own.values()) if len(own) != 1 else next(iter(own.values()))
        if joint.scores.empty:
            return
        source, config = source_of(joint), measured[0].config
        reported = source.reported()
        page.about = _about(reported.scores)
        wanted = _wanted(page.run, config)
        made, page.tables = self._tables(page, joint, wanted["tables"])
        page.charts, missing = _charts(wanted["figures"], source, made[-1] if made else None)
        page.missing += missing
        self._judge(page, joint, wanted["claims"])
        page.data |= self._data(measured, own, joint, made)
        if not page.run.runs:
            page.data["chunks"] = self._write_values(page, reported)

    def _tables(self, page: Page, frames: Frames, names: Sequence[str]) -> tuple[list[Table], list[Sheet]]:
        tables: list[Table] = []
        for name in names:
            try:
                tables += tables_of(frames, name, {})
            except UserError as error:
                page.missing.append(f"{name}: {error}")
        columns = metrics.columns()
        reasons = Reasons(frames.left_out, {}, metrics.families())
        try:
            params = TableParams(title=_ALL, drop_empty=True)
            tables += build_tables(usual(frames.scores), params, columns, usual(frames.costs), reasons)
        except UserError as error:
            page.missing.append(str(error))
        return tables, [sheets.sheet_of(table) for table in tables]

    def _judge(self, page: Page, frames: Frames, names: Sequence[str]) -> None:
        """Verdicts: of a run those it wrote, of a sweep those of the runs that there are."""
        path = page.run.folder / "claims.csv"
        try:
            if page.run.runs:
                claims = verdicts(frames, names)
            else:
                claims = read_values(path) if is_plain(path) else pd.DataFrame()
            page.claims = sheets.claim_sheets(claims, metrics.columns())
            page.notes = sheets.claim_notes(claims)
            counts: Any = claims["verdict"].value_counts() if len(claims) else {}
            page.tally = {verdict: int(counts[verdict]) for verdict in VERDICTS if verdict in counts}
        except UserError as error:
            page.missing.append(f"claims: {error}")
        except (KeyError, ValueError, TypeError, OSError):
            page.missing.append("claims.csv is not what a study wrote: run the study again")

    def _data(
        self, measured: Sequence[Run], own: Mapping[str, Frames], frames: Frames, tables: Sequence[Table]
    ) -> dict[str, Any]:
        """Rows, columns and lineage, for the details of a number and for the charts of means."""
        costs = usual(frames.costs)
        runs = {each.name: {"page": f"{self.slug(each.name)}.html", **_origin(each)} for each in measured}
        rows: dict[str, dict[str, Any]] = {}
        everything = pd.concat(
            [each[["explainer", "label", "kind"]] for each in (usual(frames.scores), costs) if len(each)]
        )
        for name, label, kind in everything.drop_duplicates("explainer").itertuples(index=False):
            rows[str(name)] = {"label": str(label), "kind": str(kind), "maps": []}
        keys: list[str] = []
        for each in measured:
            mine = usual(own[each.name].costs) if each.name in own else pd.DataFrame()
            for line in mine.to_dict("records") if "maps" in mine else ():
                key = str(line["maps"])
                rows[str(line["explainer"])]["maps"].append([each.name, str(line["case"]), key])
                keys += [key, *self._lineage.scores_of(key).values()]
        # What a paper printed comes from no run, and a click on it leads nowhere.
        own_tables = [table for table in tables if not table.is_published]
        shown = dict.fromkeys(column.name for table in own_tables for column in table.columns)
        return {
            "runs": runs,
            "rows": rows,
            "columns": {name: _column(name) for name in shown},
            "means": _means(tables),
            "artifacts": self._artifacts(keys),
            "scores": {key: found for key in dict.fromkeys(keys) if (found := self._lineage.scores_of(key))},
        }

    def _artifacts(self, keys: Sequence[str]) -> dict[str, Any]:
        return {
            key: {
                "kind": made.kind,
                "created": made.created,
                "seconds": made.seconds,
                "from": [parent for parent in made.parents if parent != key],
                "files": [
                    [name, size, self._link_to(made.path / name)]
                    for name, size in [*((name, decimal(size)) for name, size in made.files.items()), (MANIFEST, "")]
                ],
            }
            for key, made in self._lineage.of(keys).items()
        }

    def _write_values(self, page: Page, source: Source) -> dict[str, str]:
        """The values of single images, a file a metric; the file of each metric."""
        written = {}
        for number, (metric, content) in enumerate(chunks(usual(source.scores), metrics.columns())):
            name = f"{page.slug}/values{number}.js"
            write_atomically(self._output / name, as_script(f"values {metric}", content))
            written[metric] = quote(name)
        return written

    def _gallery(self, run: Run, page: Page) -> str | None:
        """Copy the pictures of a run; the script with what they are, or None: then its sheets are shown."""
        found = album.read_album(run.folder)
        if found is None:
            # What is no study has no charts of its own.
            kind = "pictures*.png" if run.is_measured or page.charts else "*.png"
            for path in sorted((run.folder / "figures").glob(kind)):
                if is_plain(path):
                    _put(path, self._output / page.slug / path.name)
                    page.pictures.append(f"{page.slug}/{quote(path.name)}")
            return None
        folder = self._output / page.slug / album.FOLDER
        folder.mkdir()
        for number in range(len(found.images)):
            path = run.folder / album.FOLDER / album.file(number)
            if is_plain(path):
                _put(path, folder / path.name)
        shown = [[each.image, each.target, each.predicted, each.true, each.second] for each in found.images]
        content = {"folder": f"{page.slug}/{album.FOLDER}", "width": found.width, "height": found.height}
        content |= {"tiles": [[each.row, each.label, each.second] for each in found.tiles], "images": shown}
        write_atomically(
            self._output / page.slug / "gallery.js", as_script("gallery", {**content, "across": album.ACROSS})
        )
        return f"{page.slug}/gallery.js"

    def write(self, pages: Sequence[Page]) -> Path:
        """Write the pages, what they share, and the index; returns the index."""
        assets = self._output / "assets"
        assets.mkdir()
        for name in _STYLES:
            write_atomically(assets / Path(name).name, templates().get_template(name).render().encode())
        write_atomically(assets / "plotly.min.js", plotly())
        for page in pages:
            data = {**page.data, "charts": [each.content for each in page.charts]}
            shown = {"page": page, "data": as_json(data), "origin": _origin(page.run)}
            self._render("site/run.html.j2", f"{page.slug}.html", shown)
        lines = list(_index_lines(pages))
        return self._render("site/index.html.j2", "index.html", {"lines": lines, "verdicts": VERDICTS})

    def _render(self, template: str, name: str, content: Mapping[str, Any]) -> Path:
        text = templates().get_template(template).render(content)
        # Folders and files have names of any bytes.
        write_atomically(self._output / name, text.encode(errors="backslashreplace"))
        return self._output / name

    def _link_to(self, place: Path) -> str:
        """The way from a page to a file."""
        return quote(os.fsencode(os.path.relpath(place, self._final)))


def _put(picture: Path, place: Path) -> None:
    """A run never writes into a picture of its own again, so that both may be one file where the disk knows how."""
    try:
        os.link(picture, place)
    except OSError:
        shutil.copyfile(picture, place)


def plotly() -> bytes:
    """Plotly's script, as its package brings it; UserError: it is not installed."""
    try:
        return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        raise UserError("the site draws its charts with plotly: install it by pip install -e '.[site]'") from None


def _index_lines(pages: Sequence[Page]) -> Iterator[tuple[Page, str, str]]:
    """Each page, what it is called there, and the sweep it is of: the last one first, the runs of a sweep below it."""
    inside = {run.name for page in pages for run in page.run.runs}
    by_name = {page.run.name: page for page in pages}
    for page in pages:
        if page.run.name in inside:
            continue
        yield page, page.title, ""
        for run, name in zip(page.run.runs, page.run.called, strict=True):
            yield by_name[run.name], name, page.title


def _charts(wanted: Sequence[Any], source: Source, everything: Table | None) -> tuple[list[Chart], list[str]]:
    """The figures that a study lists and those that fit every study, as far as they can be drawn."""
    charts, missing = [], []
    main = next((c.name for c in (everything.columns if everything else ()) if c.better and c.name not in COSTS), None)
    asked = [each if isinstance(each, str) else dict(each).get("figure") for each in wanted]
    usual_ones: list[dict[str, Any]] = [{"figure": "cost_quality", "metric": main}, {"figure": "metric_agreement"}]
    for each in (*wanted, *(each for each in usual_ones if each["figure"] not in asked)):
        try:
            drawn, why = draw_all([each], source)
        except UserError as error:
            drawn, why = [], [str(error)]
        missing += why if each in wanted else []
        for one in drawn:
            width = min(one.info.width, 720)
            charts.append(Chart(one.title, width, one.info.alt, one.info.caption, chart_of(one.figure)))
    return charts, missing


def _wanted(run: Run, config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Tables, claims and figures that a run was asked for; of a sweep those of its file, where it names some."""
    of_sweep = mapping(config.get("sweep")) if run.runs else {}
    names = ("tables", "claims", "figures")
    chosen = of_sweep if any(of_sweep.get(name) for name in names) else config
    return {name: [each for each in _listed(chosen.get(name)) if isinstance(each, str | dict)] for name in names}


def _about(scores: pd.DataFrame) -> str:
    def named(column: str) -> str:
        return ", ".join(dict.fromkeys(str(each) for each in scores[column].dropna().unique()))

    single = scores.loc[scores["image"] >= 0, ["data", "image"]].drop_duplicates()
    data = " → ".join(filter(None, (named("source"), named("data"))))
    seeds = sorted(int(seed) for seed in scores["seed"].unique())
    told = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return f"{named('model')} on {data}, {len(single):,} images of the {named('split')} split, {told}"


def _origin(run: Run) -> dict[str, str]:
    """What made the numbers of a run."""
    return {"command": visible(run.command), "commit": visible(run.commit), "ended": run.ended}


def _column(name: str) -> dict[str, Any]:
    column, family = column_of(name, metrics.columns()), metrics.families().get(name, "")
    return {each: getattr(column, each) for each in ("label", "about", "better", "unit")} | {"family": family}


def _means(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Means and intervals of the tables of everything: one for each data set."""
    found = []
    for table in tables:
        if not table.title.startswith(_ALL):
            continue
        cells: dict[str, dict[str, list[float | None]]] = {}
        for row in (row for section in table.sections for row in section.rows):
            for column, cell in zip(table.columns, row.cells, strict=True):
                if not math.isnan(cell.mean):
                    shown = [rounded(each) for each in (cell.mean, cell.low, cell.high)]
                    cells.setdefault(column.name, {})[row.name] = shown
        found.append({"title": table.title.removeprefix(_ALL).strip(" ·"), "cells": cells})
    return found


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else []
