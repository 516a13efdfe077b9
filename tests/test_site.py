"""The site that `make docs` builds: links lead somewhere, on GitHub too, and every page is in the navigation."""

import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TOP = tuple(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
PAGES = (*TOP, *sorted((ROOT / "docs").glob("*.md")))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.strip().lower()).replace(" ", "-") for each in headings}


def faults(page: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{page.name}: {link}: there is no such file"
        elif anchor and anchor not in anchors(target):
            yield f"{page.name}: {link}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(faults(page)) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "CHANGELOG"], ids=lambda page: page.stem)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`((?:benchmarks|conf|docs|sweeps|tests|xai)/[\w./-]+)`", prose(page))
    assert [each for each in named if "NAME" not in each and not (ROOT / each).exists()] == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One: a `b`\n[a](#one-a-b) [b](#two) [c](page.md#one-a-b) [d](gone.md) [e](https://example.org/gone)\n"
    )
    assert [each.split(": ")[1] for each in faults(page)] == ["#two", "gone.md"]


def listed(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from listed(each)


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.safe_load((ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(listed(nav)) == sorted(str(page.relative_to(ROOT)) for page in PAGES)


def test_what_the_reference_names_is_there() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)
    for name in names:
        assert pkgutil.resolve_name(name) is not None
    # `import xai` is complete: each name under its own heading.
    import xai

    assert re.findall(r"heading: xai\.(\w+)", text) + re.findall(r"xai\.(register_\w+)", text) == xai.__all__


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site's packages come with the first `make docs`")
    pytest.importorskip("mkdocstrings_handlers.python")
    pages, site = tmp_path / "outputs" / "docs-pages", tmp_path / "outputs" / "docs-site"
    for path in (*TOP, *(each for each in (ROOT / "docs").rglob("*") if each.is_file())):
        copy = pages / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "mkdocs.yml").write_bytes((ROOT / "docs" / "mkdocs.yml").read_bytes())
    (tmp_path / "xai").symlink_to(ROOT / "xai")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "docs/mkdocs.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    html = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    assert "Explain what a classifier says of images" in html
    assert not re.findall(r'<(?:script|img)[^>]*src="https?:|<link[^>]*rel="stylesheet"[^>]*href="https?:', html)
