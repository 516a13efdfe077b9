import base64
import re
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from xai.core.errors import UserError
from xai.reports.columns import COLUMNS
from xai.reports.html import Code, Definitions, Fragment, Picture, Prose, Section, TableBlock, write_report
from xai.reports.roles import ROLES
from xai.reports.tables import Block, Cell, Row, Table

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "link", "img", "br"}
NASTY = '<script>alert("&")</script> {{ 7 * 7 }}'


class Page(HTMLParser):
    """Elements, their attributes and text of a page; refuses tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def a_table():
    row = Row(ROLES["proposed"], (Cell(0.5, 0.25, 2, "best"),), 2)
    return Table(NASTY, (COLUMNS["e_rmse"],), (Block("method", "Models", (row,)),), (NASTY,))


def written(tmp_path, sections=(), summary=(NASTY,), title=NASTY):
    path = write_report(tmp_path / "new" / "report.html", title, summary, sections, subtitle=NASTY)
    return path.read_text(encoding="utf-8")


def everything():
    return [
        Section(NASTY, [Prose([NASTY]), TableBlock(a_table()), Picture(PIXEL, NASTY, NASTY, 700)]),
        Section("Made", [Code(NASTY), Definitions([(NASTY, NASTY)])]),
    ]


def test_the_page_is_whole_and_asks_nobody_for_anything(tmp_path):
    text = written(tmp_path, everything())
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("title")) == len(page.all("h1")) == 1
    assert not page.all("script")
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            assert re.match(r"data:|#|$", attributes.get(name) or "")
    assert not re.search(r"https?://|url\(|@import", text)


def test_strings_are_escaped_everywhere(tmp_path):
    page = Page(written(tmp_path, everything()))
    # Title, h1, subtitle, summary, contents, h2, prose, caption of the table, its note, caption of the picture, code,
    # term and definition.
    assert "".join(page.texts).count(NASTY) == 13
    assert page.all("img")[0]["alt"] == NASTY


def test_pictures_are_inside_with_their_size(tmp_path):
    (image,) = Page(written(tmp_path, everything())).all("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == PIXEL
    assert (image["width"], image["height"], image["style"]) == ("1", "1", "min-width: 700px")


def test_a_picture_may_be_kept_from_growing(tmp_path):
    (image,) = Page(written(tmp_path, [Section("x", [Picture(PIXEL, "a", "b", 300, 400)])])).all("img")
    assert image["style"] == "min-width: 300px; max-width: 400px"


def test_a_fragment_is_put_in_as_it_is(tmp_path):
    fragment = Markup("<table><tr><td>{}</td></tr></table>").format(NASTY)
    text = written(tmp_path, [Section("x", [Fragment(fragment)])])
    assert str(fragment) in text
    assert NASTY in "".join(Page(text).texts)


def test_contents_lead_to_the_sections_also_where_titles_repeat(tmp_path):
    sections = [Section(title, [Prose(["text"])]) for title in ("Twice", "Twice", "数", "A & B")]
    page = Page(written(tmp_path, sections))
    targets = [link["href"].removeprefix("#") for link in page.all("a")]
    assert len(set(targets)) == 4
    assert targets == [heading["id"] for heading in page.all("h2")]


def test_one_section_needs_no_contents(tmp_path):
    assert not Page(written(tmp_path, [Section("One", [])])).all("nav")


def test_no_summary_leaves_no_empty_box(tmp_path):
    assert {"class": "summary"} not in Page(written(tmp_path, summary=())).all("div")


def test_what_is_no_png_is_refused_and_the_earlier_page_stays(tmp_path):
    before = written(tmp_path)
    with pytest.raises(UserError, match="no PNG"):
        written(tmp_path, [Section("x", [Picture(b"GIF89a", "a gif", "")])])
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == before


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "new").write_text("a file")
    with pytest.raises(UserError, match="cannot use the folder"):
        write_report(tmp_path / "new" / "sub" / "report.html", "t", [], [])
