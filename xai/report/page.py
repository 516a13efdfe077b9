"""One page for any study: no file beside it, no request; a script only where pictures can be put in another order."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from xai.core.files import explain_disk_errors, write_atomically
from xai.report.figures import Drawn, to_bytes
from xai.report.sheets import Sheet, templates
from xai.report.tiles import Tiles


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
        """Width and height in pixels, from the header."""
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
class Part:
    """What stands under one heading: tables, pictures, a grid of them, lines; with nothing in it, it is left out."""

    heading: str
    sheets: Sequence[Sheet] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    tiles: Tiles | None = None

    @property
    def anchor(self) -> str:
        """What links to it name."""
        return self.heading.lower().replace(" ", "-")


@dataclass(frozen=True)
class Page:
    """What a page holds: sentences of what it comes to first, then its parts, the command, and by name how it was made.

    `about` says in a line what was measured: model, data, images, seeds.
    """

    title: str
    about: str = ""
    summary: Sequence[str] = ()
    parts: Sequence[Part] = ()
    command: str = ""
    made: Mapping[str, str] = field(default_factory=dict)


def write_page(path: Path, page: Page) -> Path:
    """Write a page; its folder is made, an earlier file is replaced atomically.

    Raises:
        UserError: The folder cannot be written.
    """
    parts = [part for part in page.parts if part.sheets or part.pictures or part.notes or part.tiles]
    text = templates().get_template("page.html.j2").render(page=page, parts=parts)
    with explain_disk_errors(path.parent, "choose another folder for the page"):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The command may name a file whose bytes are no text.
        write_atomically(path, text.encode(errors="backslashreplace"))
    return path
