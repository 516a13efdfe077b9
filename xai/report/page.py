"""One page for any study: no file beside it, no request, no script."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from xai.core.errors import UserError
from xai.core.files import explain_disk_errors, write_atomically
from xai.report.figures import Drawn, to_bytes

_PNG = b"\x89PNG\r\n\x1a\n"
VERDICTS = ("holds", "does not hold", "undecided", "not measured")


@dataclass(frozen=True)
class Table:
    """A table that is HTML already, safe by its type, with lines below it; the title is for one without a caption."""

    title: str
    html: Markup
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Claim:
    """What was claimed, and what became of it.

    Args:
        text: In words.
        verdict: One of `VERDICTS`.
        number: The difference, with its unit.
        interval: Of it.
        why: What an undecided or unmeasured claim lacks.
        paper: Where it is claimed.
    """

    text: str
    verdict: str
    number: str = ""
    interval: str = ""
    why: str = ""
    paper: str = ""

    def __post_init__(self) -> None:
        """Refuse a verdict that the page would not count."""
        if self.verdict not in VERDICTS:
            raise UserError(f"the verdict {self.verdict!r} of {self.text!r} is none: use {', '.join(VERDICTS)}")


@dataclass(frozen=True)
class Picture:
    """A figure as the bytes of a PNG.

    Args:
        png: The bytes.
        alt: What is to be seen, for those who do not see it.
        caption: What to look at.
        min_width: CSS pixels below which it scrolls sideways in its box rather than shrink further.
    """

    png: bytes
    alt: str
    caption: str = ""
    min_width: int = 0

    @classmethod
    def of(cls, figure: Figure, alt: str, caption: str = "", min_width: int = 0) -> "Picture":
        """A figure of matplotlib."""
        return cls(to_bytes(figure), alt, caption, min_width)

    @classmethod
    def of_drawn(cls, drawn: Drawn) -> "Picture":
        """A registered figure, with its own words."""
        return cls.of(drawn.figure, drawn.info.alt, drawn.info.caption, drawn.info.width)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the header; UserError where the bytes are no PNG."""
        if self.png[:8] != _PNG or len(self.png) < 24:
            raise UserError(f"the picture '{self.alt[:40]}' is no PNG: give the bytes of one")
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    @property
    def max_width(self) -> int:
        """CSS pixels it is shown with at most: drawn with 160 an inch, a small figure would else fill the page."""
        return self.size[0] * 3 // 4

    @property
    def uri(self) -> str:
        """The picture itself as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Page:
    """What a page holds; a part with nothing in it has no heading.

    Args:
        title: Of the page.
        about: What was measured, in a line: model, data, images, seeds.
        summary: What it comes to, a sentence each, printed first.
        tables: In order.
        claims: With their verdicts.
        claims_note: How a verdict is reached.
        figures: In order.
        missing: A line for each figure or metric that is not there, with the reason.
        pictures: Sheets of maps.
        costs: The frame of costs.
        glossary: Rows and metrics by label: what each of them is.
        command: What was typed.
        made: How it was made, by name: lineage, versions, seconds.
        keys: Artifacts of the store that it was made from, by what they are.
    """

    title: str
    about: str = ""
    summary: Sequence[str] = ()
    tables: Sequence[Table] = ()
    claims: Sequence[Claim] = ()
    claims_note: str = ""
    figures: Sequence[Picture] = ()
    missing: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    glossary: Sequence[tuple[str, str]] = ()
    command: str = ""
    made: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchor and heading of every part that holds something, in the order of the page."""
        parts = {
            "tables": ("The table" if len(self.tables) == 1 else "The tables", self.tables),
            "claims": ("The claims", self.claims),
            "figures": ("The figures", [*self.figures, *self.missing]),
            "pictures": ("What the maps look like", self.pictures),
            "costs": ("What it costs", cost_lines(self.costs)),
            "glossary": ("Rows and metrics", self.glossary),
            "made": ("How this was made", [self.command, *self.made] if self.command or self.made else []),
        }
        return [(anchor, heading) for anchor, (heading, content) in parts.items() if content]

    @property
    def tally(self) -> list[tuple[str, int]]:
        """How many claims have each verdict, without those that none has."""
        counts = {verdict: sum(claim.verdict == verdict for claim in self.claims) for verdict in VERDICTS}
        return [(verdict, count) for verdict, count in counts.items() if count]


def cost_lines(costs: pd.DataFrame) -> list[dict[str, str]]:
    """What a map of each row costs, cheapest first, means over runs; rows of which nothing is known are left out."""
    names = [name for name in ("milliseconds", "passes", "train_seconds") if name in costs]
    if costs.empty or not names:
        return []
    means = costs.groupby(["explainer", "label", "kind"], sort=False, dropna=False)[names].mean().reset_index()
    means = means.dropna(subset=names, how="all").sort_values(names[0], kind="stable")
    return [
        {"label": str(line["label"]), "kind": str(line["kind"])} | {name: _figure(line[name]) for name in names}
        for line in means.to_dict("records")
    ]


def write_page(path: Path, page: Page) -> Path:
    """Write a page; its folder is made, an earlier file is replaced atomically.

    Raises:
        UserError: A picture is no PNG, or the folder cannot be written.
    """
    text = _template().render(page=page, costs=cost_lines(page.costs), sections=page.sections)
    with explain_disk_errors(path.parent, "choose another folder for the page"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    return path


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _figure(value: float) -> str:
    """Three digits, a dash where it is unknown."""
    if pd.isna(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
