"""One self-contained page out of prose, tables, figures and definitions: no file beside it, no request, no script."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from xai.core.errors import UserError
from xai.core.files import explain_disk_errors, write_atomically
from xai.reports.renderers import as_html
from xai.reports.tables import Table

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain text."""

    paragraphs: Sequence[str]
    kind: str = "prose"


@dataclass(frozen=True)
class TableBlock:
    """A table with its notes."""

    table: Table
    kind: str = "table"

    @property
    def fragment(self) -> Markup:
        """The table as HTML."""
        return as_html(self.table)


@dataclass(frozen=True)
class Fragment:
    """HTML that is put into the page as it is, safe by its type."""

    fragment: Markup
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """A figure.

    Args:
        png: The bytes of a PNG.
        alt: What is to be seen, for those who do not see it.
        caption: What to look at.
        min_width: CSS pixels below which it scrolls sideways in its box rather than shrink further.
        max_width: CSS pixels beyond which it does not grow; 0 for as wide as the page.
    """

    png: bytes
    alt: str
    caption: str
    min_width: int = 0
    max_width: int = 0
    kind: str = "picture"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the header; UserError where the bytes are no PNG."""
        if self.png[:8] != _PNG or len(self.png) < 24:
            raise UserError(f"the picture '{self.alt[:40]}' is no PNG; a report holds PNG bytes")
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")

    @property
    def uri(self) -> str:
        """The picture itself as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Definitions:
    """Terms and what they mean."""

    items: Sequence[tuple[str, str]]
    kind: str = "definitions"


@dataclass(frozen=True)
class Code:
    """Text to be shown as typed, for example a command."""

    text: str
    kind: str = "code"


Block = Prose | TableBlock | Fragment | Picture | Definitions | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


def write_report(
    path: Path, title: str, summary: Sequence[str], sections: Sequence[Section], subtitle: str = ""
) -> Path:
    """Write a page.

    Args:
        path: The file; its folder is made, an earlier file is replaced atomically.
        title: Of the page.
        summary: What it comes to, one sentence each, printed first.
        sections: In order; two or more get a table of contents.
        subtitle: A line under the title.

    Returns:
        The path.

    Raises:
        UserError: A picture is no PNG, or the folder cannot be written.
    """
    page = _template().render(
        title=title,
        subtitle=subtitle,
        summary=summary,
        sections=list(zip(_anchors([section.title for section in sections]), sections, strict=True)),
    )
    path = Path(path)
    with explain_disk_errors(path.parent, "choose another folder for the report"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode())
    return path


def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")


def _anchors(titles: Sequence[str]) -> list[str]:
    """A fragment name for each title, all different."""
    names: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        count = sum(earlier == name or earlier.startswith(f"{name}--") for earlier in names)
        names.append(f"{name}--{count + 1}" if count else name)
    return names
