"""The site over a large study: 30 explainers, 5,000 images, six metrics, and every image in the gallery.

The numbers are made up and the pictures repeat after fifty images: what is measured is how long the site takes to be
built, and what a browser without a network takes to open it, to sort, to filter and to switch.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from xai.core.composing import choices
from xai.core.folders import MARKER
from xai.explainers.rows import load_row
from xai.metrics import registry as metrics
from xai.report import album
from xai.report.pictures import Gallery
from xai.study.frame import Frames, write_frames

METRICS = ("srg", "r_srg", "mif", "lif", "rma", "deletion_auc")
LOOKS: tuple[dict[str, Any], ...] = (
    {"viewport": {"width": 1280, "height": 900}},
    {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True},
)
DRAWN = 50
"""Different pictures; the others are links to them."""
SORT = "document.querySelector('.sheet:not([hidden]) th[data-column=srg]').click()"
FILTER = (
    "{ const box = document.querySelector('[data-filter]'); box.value = 'ri'; box.dispatchEvent(new Event('input')); }"
)
CLEAR = FILTER.replace("'ri'", "''")
CELL = "document.querySelector('.sheet:not([hidden]) td.number').click()"
COLUMN = "{ const box = document.getElementById('column'); box.value = 'rma'; box.dispatchEvent(new Event('change')); }"
SINGLE = "document.getElementById('images').click()"
NEXT = "document.querySelectorAll('#thumbs [data-at]')[1].click()"
CLASS = "{ const box = document.getElementById('class'); box.value = '7'; box.dispatchEvent(new Event('change')); }"


def write_run(folder: Path, images: int, explainers: int) -> None:
    """What a study of so many images and explainers leaves behind."""
    metrics.columns()
    names = [name for name in choices("explainer") if not name.startswith("ft_")][:explainers]
    rows = {name: load_row(name, {}) for name in names}
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    count = len(METRICS) * images
    parts = []
    for name, row in rows.items():
        about: dict[str, Any] = {
            "case": "main",
            "explainer": name,
            "label": row.label,
            "kind": row.entry.info.kind,
            "model": "vit_tiny",
        }
        about |= {"data": "digits", "source": None, "seed": 0, "split": "test", "chance": float("nan")}
        values = generator.normal(generator.uniform(0.2, 0.6), 0.1, count)
        numbers = {"metric": np.repeat(METRICS, images), "image": np.tile(np.arange(images), len(METRICS))}
        parts.append(pd.DataFrame({**numbers, "value": values}).assign(**about))
    costs = pd.concat([each.iloc[:1].drop(columns=["metric", "image", "value", "chance"]) for each in parts])
    costs = costs.assign(passes=4.0, milliseconds=2.0, maps="0" * 20, stage=None)
    scores = pd.concat(parts, ignore_index=True)
    write_frames(folder, Frames(scores, pd.DataFrame(), costs, pd.DataFrame()))
    _write_gallery(folder, images, {row.label: name for name, row in rows.items()})
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"study": "salvage", "tables": [], "figures": []}))
    (folder / MARKER).write_text(json.dumps({"written": ["scores.csv"]}))


def _write_gallery(folder: Path, images: int, labels: dict[str, str]) -> None:
    drawn = min(DRAWN, images)
    torch.manual_seed(0)
    classes = [str(number % 10) for number in range(drawn)]
    maps = {label: torch.randn(drawn, 6, 6) for label in labels}
    shown = Gallery(
        torch.rand(drawn, 3, 42, 42), maps, classes, true=classes, predicted=classes, rows=list(range(drawn))
    )
    album.write_album(folder, [shown], labels)
    place = folder / album.FOLDER
    for number in range(drawn, images):
        os.link(place / album.file(number % drawn), place / album.file(number))
    listed = json.loads((place / album.LIST).read_text())
    listed["images"] = [{**listed["images"][number % drawn], "image": number} for number in range(images)]
    (place / album.LIST).write_text(json.dumps(listed))


@contextmanager
def opened(complaints: list[str], **look: Any) -> Iterator[Any]:
    """A page of a browser without a network; what it complains of is listed.

    Raises:
        SystemExit: There is no browser.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        own = Path(started.chromium.executable_path)
        found = own if own.is_file() else next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
        if found is None:
            raise SystemExit("needs a browser: apt-get install chromium, or playwright install chromium")
        browser = started.chromium.launch(executable_path=str(found), args=["--no-sandbox"])
        page = browser.new_context(offline=True, **look).new_page()
        page.set_default_timeout(300_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        browser.close()


def browse(page: Any, address: str) -> dict[str, float]:
    """Seconds of what a visitor does, until it is on the screen."""
    found: dict[str, float] = {}

    def timed(what: str, code: str, until: str = "true") -> None:
        start = time.perf_counter()
        page.evaluate(f"{{ {code} }}")
        page.wait_for_function(until)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")
        found[what] = time.perf_counter() - start

    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.locator(".sheet table tbody tr").first.wait_for()
    page.wait_for_function("document.querySelector('td.number') !== null")
    found["until the first table can be used"] = time.perf_counter() - start
    timed("sort", SORT)
    timed("filter", FILTER)
    timed("filter, taken back", CLEAR)
    timed("the values behind a number", CELL, "document.querySelector('dialog .histogramlayer, dialog .bars') !== null")
    page.keyboard.press("Escape")
    page.locator("#means").scroll_into_view_if_needed()
    page.locator("#means svg.main-svg").first.wait_for()
    timed("another column drawn", COLUMN, "document.getElementById('told').textContent.startsWith('RMA')")
    timed("all single images drawn", SINGLE, "document.querySelector('#means .boxlayer .trace') !== null")
    page.locator("#gallery").scroll_into_view_if_needed()
    page.locator("#maps figure").first.wait_for()
    timed("another image of the gallery", NEXT, "document.getElementById('said').textContent.startsWith('Image 1 ')")
    timed("another class of the gallery", CLASS, "document.getElementById('said').textContent.startsWith('Image 7 ')")
    return found
