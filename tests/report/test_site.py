"""The site: what is on its pages and beside them, and what a browser without a network makes of it."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.report.site_runs import HOSTILE, Built, build, frames, gallery, write_run
from tests.report.test_page import read
from tests.toolbox import refusal
from xai.core.folders import MARKER
from xai.report import album
from xai.report.pictures import single_maps
from xai.report.site.charts import chart_of
from xai.report.site.found import find
from xai.report.site.lineage import Lineage
from xai.report.site.pages import Site, plotly
from xai.sweeps.site import SiteSettings, run


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("site"))


def data_of(path: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


def given(path: Path) -> tuple[str, dict]:
    name, content = re.fullmatch(r'site\.take\((".*?"), (\{.*\})\);\n', path.read_text()).groups()
    return json.loads(name), json.loads(content)


def test_every_link_leads_to_a_file_and_nothing_is_asked_of_the_network(site: Built) -> None:
    pages = sorted(site.folder.glob("*.html"))
    assert [page.name for page in pages] == [
        "b-run.html",
        "index.html",
        "sweep-seed=0.html",
        "sweep-seed=1.html",
        "sweep.html",
    ]
    for page in pages:
        reader = read(page)
        assert len(reader.ids) == len(set(reader.ids))
        for link in reader.links:
            path, _, anchor = link.partition("#")
            assert link == "data:," or (site.folder / unquote(path)).exists() or (not path and anchor in reader.ids), (
                link
            )
    for path in (path for path in site.folder.rglob("*") if path.suffix in (".html", ".css", ".js")):
        if path.name != "plotly.min.js":
            assert "http" not in path.read_text(), path
    for files in [each["files"] for each in data_of(site.folder / "b-run.html")["artifacts"].values()]:
        assert all((site.folder / unquote(link)).is_file() for _, _, link in files)


def test_text_of_a_run_stays_text(site: Built) -> None:
    for page in site.folder.glob("*.html"):
        reader = read(page)
        assert not reader.handlers
        assert "img" not in reader.tags
        assert "b" not in reader.tags
    assert HOSTILE in read(site.folder / "b-run.html").text
    for script in (path for path in site.folder.rglob("*.js") if path.parent.name != "assets"):
        assert not re.search(r"[<>&\u2028]", script.read_text())


def test_values_of_single_images_lie_beside_the_page_of_a_run(site: Built) -> None:
    data = data_of(site.folder / "b-run.html")
    assert set(data["chunks"]) == {"srg", "mif"}
    name, content = given(site.folder / data["chunks"]["srg"])
    assert name == "values srg"
    lines = frames(2, "").scores.query("metric == 'srg' and explainer == 'rise'").set_index("image")["value"]
    assert content["rows"]["rise"] == pytest.approx(100 * lines.loc[content["images"]], rel=1e-4)
    means = data["means"][0]["cells"]["srg"]
    assert means["rise"][0] == pytest.approx(100 * lines.mean(), rel=1e-5)
    # Runs of a sweep have other images.
    assert "chunks" not in data_of(site.folder / "sweep.html")
    assert set(data_of(site.folder / "sweep.html")["runs"]) == {"sweep/seed=0", "sweep/seed=1"}


def test_a_number_names_its_artifacts_commit_and_command(site: Built) -> None:
    data = data_of(site.folder / "b-run.html")
    assert data["rows"]["salvage"]["maps"] == [["<b>run", "main", site.maps]]
    assert data["scores"][site.maps] == {"removal": site.scores}
    assert data["columns"]["srg"]["family"] == "removal"
    assert site.maps in data["artifacts"][site.scores]["from"]
    assert [data["artifacts"][key]["kind"] for key in data["artifacts"][site.maps]["from"]] == ["classifier"]
    assert data["runs"]["<b>run"]["command"] == HOSTILE
    assert data["runs"]["<b>run"]["commit"] == "c0ffee" * 6


def test_what_a_paper_printed_comes_from_no_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "run"
    write_run(folder, 0, "maps")
    (folder / ".hydra" / "config.yaml").write_text(json.dumps({"study": "salvage", "tables": ["salvage_table1"]}))
    (tmp_path / "site").mkdir()
    (found,) = find(tmp_path / "outputs", tmp_path / "site")
    page = Site(tmp_path / "site", tmp_path / "site", Lineage([])).page(found)
    measured, printed, everything = (set(table.columns) for table in page.tables)
    assert set(page.data["columns"]) == measured | everything
    assert printed.isdisjoint(page.data["columns"])


def test_claims_that_were_not_measured_are_told_of_and_links_to_them_lead_somewhere(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "run"
    write_run(folder, 0, "maps")
    claims = pd.read_csv(folder / "claims.csv", dtype=str).assign(heading="Ours", verdict="not measured", why="no row")
    claims.to_csv(folder / "claims.csv", index=False)
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", tmp_path / "site", Lineage([]))
    site.write([site.page(found) for found in find(tmp_path / "outputs", tmp_path / "site")])
    shown = read(tmp_path / "site" / "run.html")
    assert "#claims" in shown.links
    assert "claims" in shown.ids
    assert "Of 2 comparisons" in shown.text


def test_a_folder_whose_name_is_no_text_has_a_page_and_links(tmp_path: Path) -> None:
    write_run(tmp_path / "outputs" / os.fsdecode(b"run\xff"), 0, "maps")
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site", tmp_path / "site", Lineage([]))
    site.write([site.page(found) for found in find(tmp_path / "outputs", tmp_path / "site")])
    assert "../outputs/run%FF/scores.csv" in read(tmp_path / "site" / "run.html").links
    assert r"run\udcff" in read(tmp_path / "site" / "index.html").text


def test_a_sweep_over_settings_has_its_rows_apart(tmp_path: Path) -> None:
    names = [f"clip={clip}" for clip in (1, 2)]
    for number, name in enumerate(names):
        folder = tmp_path / "outputs" / "sweep" / name
        write_run(folder, 0, f"maps {number}")
        (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(["study=salvage", f"++{name}"]))
        scores = pd.read_csv(folder / "scores.csv")
        scores.loc[scores["explainer"] == "salvage", "value"] += 0.1 * number
        scores.to_csv(folder / "scores.csv", index=False)
    # What a run of the sweep's name has left there.
    album.write_album(tmp_path / "outputs" / "sweep", [gallery()], dict.fromkeys(gallery().maps, "row"))
    (tmp_path / "site").mkdir()
    made = Site(tmp_path / "site", tmp_path / "site", Lineage([]))
    pages = {found.name: made.page(found) for found in reversed(find(tmp_path / "outputs", tmp_path / "site"))}
    page = pages["sweep"]
    assert not page.missing
    assert (page.data["gallery"], page.pictures) == (None, [])
    assert pages[f"sweep/{names[0]}"].data["gallery"] is not None
    rows = [f"salvage at ++{name}" for name in names]
    assert set(page.data["rows"]) == {*rows, "rise", "grad_cam", "random"}
    assert [page.data["rows"][row]["maps"] for row in rows] == [
        [[f"sweep/{name}", "main", f"maps {number}"]] for number, name in enumerate(names)
    ]
    cells = page.data["means"][0]["cells"]["srg"]
    assert [cells[row][0] for row in rows] == pytest.approx([60, 70], abs=0.1)
    assert set(pages[f"sweep/{names[0]}"].data["rows"]) == {"salvage", "rise", "grad_cam", "random"}


def test_a_broken_manifest_is_as_if_it_were_not_there(site: Built, tmp_path: Path) -> None:
    for number, text in enumerate(["[", "[1]", '{"format": 1}', "x" * 5_000_000]):
        folder = tmp_path / "maps" / f"{number:020x}"
        folder.mkdir(parents=True)
        (folder / "artifact.json").write_text(text)
    assert Lineage([tmp_path, tmp_path / "none"]).of([f"{number:020x}" for number in range(5)]) == {}


def test_only_marked_folders_are_runs_and_no_link_is_followed(site: Built, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scores.csv").write_text("private")
    (tmp_path / "link").symlink_to(site.outputs / "<b>run")
    assert find(tmp_path, tmp_path / "site") == []
    assert "no run has ended in" in refusal(run, SiteSettings("site", "site", str(tmp_path), "store", ()), tmp_path)
    assert "is no folder" in refusal(run, SiteSettings("site", "site", str(tmp_path / "none"), "store", ()), tmp_path)


def test_a_run_that_has_written_very_many_files_is_one(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "explain").mkdir(parents=True)
    names = [f"{number:060}.png" for number in range(70_000)]
    (tmp_path / "outputs" / "explain" / MARKER).write_text(json.dumps({"written": names}))
    (found,) = find(tmp_path / "outputs", tmp_path / "site")
    assert found.name == "explain"


def test_what_is_no_study_has_its_figure_and_an_earlier_site_no_page(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="task=site: pip install -e '.[site]'")
    long = "x" * 130
    configs = {"tuned": {"task": "tune", "study": "vectors"}, "site": {"task": "site", "study": "vectors"}}
    configs |= {f"sweep/{long},seed={seed}": {"task": "train", "method": "salvage"} for seed in (0, 1)}
    for name, config in configs.items():
        folder = tmp_path / "outputs" / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / "figures").mkdir()
        Image.new("RGB", (8, 8)).save(folder / "figures" / "trade_off.png")
        (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))
        (folder / ".xai.json").write_text(json.dumps({"written": ["figures"]}))
    (tmp_path / "new").mkdir()
    run(SiteSettings("site", "new", str(tmp_path / "outputs"), str(tmp_path / "store"), ()), tmp_path / "new")
    assert "tuned/trade_off.png" in read(tmp_path / "new" / "tuned.html").links
    pages = {path.stem for path in (tmp_path / "new").glob("*.html")}
    assert "site" not in pages
    assert {page[-6:] for page in pages - {"index", "tuned", "sweep"}} == {"seed=0", "seed=1"}
    # Of a sweep its runs say what it is, also where task=report has been there.
    for name, content in (
        (".hydra/config.yaml", {"task": "report"}),
        (".hydra/made.yaml", {"command": "task=report", "commit": "b" * 40}),
        ("results/about.yaml", {"command": "-m sweep=mine", "commit": "a" * 10}),
        (".xai.json", {"written": ["results"]}),
    ):
        path = tmp_path / "outputs" / "sweep" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    sweep = next(found for found in find(tmp_path / "outputs", tmp_path / "new") if found.name == "sweep")
    assert (sweep.what, sweep.command, sweep.commit) == ("train salvage", "-m sweep=mine", "a" * 10)
    told = read(tmp_path / "new" / "index.html").text
    assert all(each in told for each in ("seed=0", "train salvage", "tune"))
    assert long not in told
    assert "vectors" not in told


def test_without_plotly_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    assert "pip install -e '.[site]'" in refusal(plotly)


def test_a_file_of_the_gallery_has_each_map_at_its_place(tmp_path: Path) -> None:
    shown = gallery()
    album.write_album(tmp_path, [shown], {label: f"row {label}" for label in shown.maps})
    found = album.read_album(tmp_path)
    assert [(tile.label, tile.second) for tile in found.tiles] == [
        ("image", False), *((label, False) for label in shown.maps), ("salvage", True),
    ]  # fmt: skip
    assert [image.target for image in found.images] == shown.classes
    sheet = np.asarray(Image.open(tmp_path / album.FOLDER / album.file(3)).convert("RGB"), dtype=float)
    assert sheet.shape == (found.height, found.width * len(found.tiles), 3)
    _, maps = single_maps(shown)
    for place, label in enumerate(shown.maps, start=1):
        tile = sheet[:, place * found.width : (place + 1) * found.width]
        side = maps[label][3].shape[0]
        cells = tile.reshape(side, found.height // side, side, found.width // side, 3).mean((1, 3))
        assert np.abs(cells - maps[label][3]).mean() < 12  # of 255, after WebP


def test_an_album_that_is_none_is_left_out(tmp_path: Path) -> None:
    assert album.read_album(tmp_path) is None
    (tmp_path / album.FOLDER).mkdir()
    for text in ("[", "[]", '{"width": -1}', '{"width": 1, "height": 1, "tiles": [], "images": []}'):
        (tmp_path / album.FOLDER / album.LIST).write_text(text)
        assert album.read_album(tmp_path) is None


def test_a_chart_has_the_points_of_its_figure() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.errorbar([1, 10], [2.0, 3.0], [[0.5, 0.25], [1, 0.75]], fmt="s", label="measured")
    left.annotate("here <b>", (10, 3.0))
    left.fill_between([1, 10], [1, 2], [3, 4], alpha=0.5)
    left.axhline(2.5, linestyle=":")
    left.set_xscale("log")
    left.set_title("left")
    left.set_xlabel("<i>x")
    right.bar([0, 1], [4, 5], 0.5, yerr=[0.1, 0.2], label="bars")
    right.set_xticks([0, 1], ["a", "b"])
    chart = chart_of(figure)
    points = next(each for each in chart["data"] if each["name"] == "measured")
    assert (points["x"], points["y"]) == ([1, 10], [2, 3])
    assert points["text"] == ["", "here &lt;b&gt;"]
    assert points["error_y"]["array"] == pytest.approx([1, 0.75])
    assert points["error_y"]["arrayminus"] == pytest.approx([0.5, 0.25])
    bars = next(each for each in chart["data"] if each["type"] == "bar")
    assert (bars["x"], bars["y"], bars["xaxis"]) == ([0, 1], [4, 5], "x2")
    assert bars["error_y"]["array"] == pytest.approx([0.1, 0.2])
    assert any(each.get("fill") == "toself" for each in chart["data"])
    layout = chart["layout"]
    assert (layout["xaxis"]["type"], layout["xaxis2"]["ticktext"]) == ("log", ["a", "b"])
    assert [shape["y0"] for shape in layout["shapes"]] == [2.5]
    assert layout["xaxis"]["domain"][1] < layout["xaxis2"]["domain"][0]
    assert layout["xaxis"]["title"]["text"] == "&lt;i&gt;x"
    title, word = layout["annotations"]
    assert (title["text"], word["text"]) == ("left", "here &lt;b&gt;")
    assert (word["x"], word["y"]) == (1, 3)  # of a logarithmic axis the logarithm


def test_a_chart_has_points_whose_interval_nobody_knows() -> None:
    figure = Figure()
    axes = figure.subplots()
    lengths = [[0.1, np.nan, np.nan], [0.2, np.nan, np.nan]]
    axes.errorbar([1, 2, 3], [5.0, 6.0, np.nan], lengths, fmt="o", label="one run of some")
    axes.bar([1, 2, 3], [5.0, 6.0, 7.0], yerr=lengths)
    points, bars = chart_of(figure)["data"]
    assert (bars["y"], points["y"]) == ([5, 6, 7], [5, 6, None])
    for trace in (bars, points):
        assert trace["error_y"]["array"] == [pytest.approx(0.2), None, None]
        assert trace["error_y"]["arrayminus"] == [pytest.approx(0.1), None, None]


def test_a_chart_has_marks_that_stand_in_its_legend_alone() -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([], [], "s", color="black", label="to digits")
    axes.plot([], [], "s")
    (mark,) = chart_of(figure)["data"]
    assert (mark["name"], mark["x"], mark["y"], mark["showlegend"]) == ("to digits", [None], [None], True)
    assert mark["marker"]["symbol"] == "square"


def test_a_chart_has_what_lies_across_a_panel_and_the_steps_of_a_line() -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4], drawstyle="steps-pre", label="front")
    axes.axhline(3.5, linestyle="--", label="one pass")
    axes.axhspan(3.25, 3.75, alpha=0.25)
    axes.axhspan(np.nan, np.nan)
    axes.axvspan(1, 2)
    axes.axvline(1.5)
    chart = chart_of(figure)
    traces = {each["name"]: each for each in chart["data"]}
    assert traces["front"]["line"]["shape"] == "vh"
    level = traces["one pass"]
    assert (level["y"], level["mode"], level["showlegend"]) == ([3.5, 3.5], "lines", True)
    assert level["x"] == pytest.approx(axes.get_xlim())
    line, band = chart["layout"]["shapes"]
    assert (line["xref"], line["x0"], line["x1"], line["yref"]) == ("x", 1.5, 1.5, "y domain")
    assert (band["yref"], band["y0"], band["y1"], band["opacity"]) == ("y", 3.25, 3.75, 0.25)


def test_a_heat_map_keeps_values_and_words() -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.imshow([[1, 0.5], [0.5, 1]], cmap=plt.get_cmap("RdBu"), vmin=-1, vmax=1)
    axes.text(1, 0, "0.50")
    axes.set_xticks([0, 1], ["a", "b"])
    axes.set_yticks([0, 1], ["c", "d"])
    (trace,) = chart_of(figure)["data"]
    assert trace["z"] == [[1, 0.5], [0.5, 1]]
    assert trace["text"] == [["", "0.50"], ["", ""]]
    assert trace["hovertext"][0] == ["c · a", "c · b"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
    with playwright.sync_playwright() as started:
        own = Path(started.chromium.executable_path)
        found = (
            str(own) if own.is_file() else next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
        )
        if found is None:
            pytest.skip("needs a browser: apt-get install chromium, or playwright install chromium")
        # Its sandbox does not start for root, in containers.
        opened = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(offline=True, color_scheme="dark", viewport={"width": 390, "height": 844})
    page, complaints = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else complaints.append(asked.url),
    )
    yield page
    assert complaints == []
    context.close()


def names(page: Any, table: str) -> list[str]:
    return page.locator(f"{table} tbody tr:not(.heading):visible th").all_inner_texts()


def test_the_index_is_filtered_and_leads_to_a_page(page: Any, site: Built) -> None:
    page.goto((site.folder / "index.html").as_uri())
    assert len(names(page, "#runs")) == 4
    page.get_by_label("sweeps only").check()
    assert len(names(page, "#runs")) == 1
    page.get_by_label("sweeps only").uncheck()
    page.get_by_label("Filter").fill("b>run")
    page.get_by_role("link", name="<b>run").click()
    assert page.locator("h1").inner_text() == "<b>run"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_table_is_sorted_and_a_number_explained(page: Any, site: Built) -> None:
    page.goto((site.folder / "b-run.html").as_uri())
    table = ".sheet:not([hidden]) table"
    first = names(page, table)
    head = page.locator(f"{table} th[data-column=srg]")
    head.click()
    assert names(page, table) == ["salvage", "grad cam", HOSTILE, "random"]
    head.press("Enter")
    assert names(page, table) == ["random", HOSTILE, "grad cam", "salvage"]
    head.click()
    assert names(page, table) == first
    page.get_by_label("Filter").fill("grad")
    assert names(page, table) == ["grad cam"]
    page.locator(f"{table} tr[data-row=grad_cam] td.number").first.click()
    dialog = page.locator("dialog")
    assert "commit c0ffeec0ff" in dialog.inner_text()
    assert HOSTILE in dialog.inner_text()
    dialog.locator("summary").first.click()
    dialog.get_by_text("maps.safetensors").first.wait_for()
    dialog.locator(".bars, .histogramlayer").first.wait_for(state="attached")
    page.keyboard.press("Escape")
    assert page.title() == "<b>run"


def test_charts_are_vectors_with_values_and_claims_are_filtered(page: Any, site: Built) -> None:
    page.goto((site.folder / "b-run.html").as_uri())
    page.locator("#means").scroll_into_view_if_needed()
    page.locator("#means svg.main-svg").first.wait_for()
    assert page.locator("#which").is_hidden()  # of one data set nothing is to be chosen, on a telephone neither
    page.get_by_label("single images").check()
    page.locator("#means .boxlayer .trace").first.wait_for(state="attached")
    chart = page.locator("[data-chart='0']")
    chart.scroll_into_view_if_needed()
    point = chart.locator(".bars .point, .scatterlayer .point").first
    point.wait_for()
    point.hover(force=True)
    chart.locator(".hoverlayer .hovertext").first.wait_for()
    shown = page.locator(".verdicts tbody tr:visible")
    assert shown.count() == 2
    page.locator("[data-verdicts] input[value=holds]").uncheck()
    assert shown.count() == 1


def test_explainers_are_switched_and_compared_on_one_image_class_by_class(page: Any, site: Built) -> None:
    page.goto((site.folder / "b-run.html").as_uri())
    page.locator("#gallery").scroll_into_view_if_needed()
    maps = page.locator("#maps figure")
    maps.first.wait_for()
    assert maps.count() == 3
    assert page.locator("#thumbs [data-at]").count() == 8
    page.locator("#class").select_option(HOSTILE)
    assert page.locator("#thumbs [data-at]").count() == 3
    page.get_by_label("misclassified only").check()
    assert f"true class {HOSTILE}, predicted cat" in page.locator("#said").inner_text()
    page.locator("#second").select_option("both")
    assert maps.first.locator("small").all_inner_texts() == [HOSTILE, "dog"]
    page.locator("#value").select_option("srg")
    page.wait_for_function("/[0-9]/.test(document.querySelector('#maps figcaption span').textContent)")
    page.locator("#rows").fill("grad")
    page.wait_for_function("document.querySelectorAll('#maps figure').length === 1")
    maps.first.click()
    assert page.locator("#left").input_value() == "2"
    assert page.locator("#over .tile-of").count() == 2
    place = page.locator("#over .tile-of").last.evaluate("made => getComputedStyle(made).backgroundPosition")
    assert re.match(r"50% 0", place)  # of five tiles the third
    page.locator("#thumbs").press("ArrowRight")
    assert "Image 3 of" in page.locator("#said").inner_text()
    page.wait_for_function("document.images.length === 0 || [...document.images].every((each) => each.complete)")
