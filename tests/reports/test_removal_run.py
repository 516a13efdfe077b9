import base64
import csv
import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.reports.removal_rows import evidence, measured, write
from tests.reports.test_html import PIXEL
from tests.reports.test_removal_pictures import PICTURES
from xai.core.errors import UserError
from xai.core.progress import console
from xai.reports import removal_figures
from xai.reports.claim_renderers import tally
from xai.reports.claims import judge
from xai.reports.measured import Evidence
from xai.reports.removal_claims import CLAIMS
from xai.reports.removal_run import present
from xai.reports.renderers import number

FIGURES = {"figure2", "figure3", "figure4", "figure6", "figure7", "pictures"}


class Logger:
    def __init__(self):
        self.logged, self.status = {}, None

    def log_metrics(self, metrics):
        self.logged |= metrics

    def finalize(self, status):
        self.status = status


def runtime(logger=False):
    store = SimpleNamespace(root=Path("store"), made=[], found=[], summary=lambda: "2 re-used, 1 made")
    trainer = SimpleNamespace(device="cpu", precision="32-true")
    return SimpleNamespace(store=store, trainer=trainer, logger=logger)


@pytest.fixture
def quick(monkeypatch):
    """Figures that are not drawn out."""
    monkeypatch.setattr(removal_figures, "to_png", lambda figure: PIXEL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of one seed, what was printed, and what was logged."""
    folder, logger = tmp_path_factory.mktemp("run"), Logger()
    write(folder, evidence(seeds=1))
    with console.capture() as printed:
        present(runtime(logger), folder, PICTURES, "python run.py <method>", {"training of salvage": "12 s"})
    return folder, printed.get(), logger


def test_the_folder_holds_tables_claims_figures_and_a_page(run):
    folder = run[0]
    assert {path.stem for path in (folder / "figures").glob("*.png")} == FIGURES
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "table.md",
        "table.csv",
        "claims.md",
        "report.html",
    }
    rows = {line["role"]: line for line in csv.DictReader(io.StringIO((folder / "table.csv").read_text()))}
    salvage = next(one.result.metrics for one in evidence(seeds=1).rows if one.result.role == "salvage")
    for name, value in salvage.items():
        assert float(rows["salvage"][name]) == pytest.approx(value if name == "mcc" else 100 * value)
    assert rows["surrogate"]["srg"] == ""
    assert tally(judge(evidence(seeds=1), CLAIMS)) in (folder / "claims.md").read_text()


def test_what_is_printed_is_what_is_written(run):
    folder, printed, logger = run
    titles = re.findall(r"^\*\*(.*)\*\*$", (folder / "table.md").read_text(), flags=re.MULTILINE)
    assert [title.split(" · ")[0] for title in titles] == [
        "Faithfulness and localisation",
        "Least and most influential first",
        "The explainer as a classifier",
    ]
    for text in (*titles, "SALVAGE less each other row", "2 re-used, 1 made", "report.html"):
        assert text in printed
    assert logger.status == "success"
    assert logger.logged["result/rise/srg"] == pytest.approx(0.22, abs=0.05)


def test_the_page_is_whole(run):
    folder, _, _ = run
    page = (folder / "report.html").read_text()
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert sorted(pictures) == sorted((folder / "figures" / f"{name}.png").read_bytes() for name in FIGURES)
    assert "python run.py &lt;method&gt;" in page
    for text in ("training of salvage", "one seed, so no spread", "32-true", "Relevance rank accuracy", "ViT-Shapley"):
        assert text in page
    mean = number(100 * next(o.result.metrics["srg"] for o in evidence(1).rows if o.result.role == "vit_shapley"), 1)
    assert f"<td>{mean}</td>" in page


def test_what_is_missing_is_said_and_nothing_breaks(tmp_path, quick):
    rows = tuple(one for one in evidence(seeds=1).rows if one.result.role in ("salvage", "random"))
    write(tmp_path, Evidence(rows))
    with console.capture() as printed:
        present(runtime(), tmp_path, None, "run")
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"figure2", "figure4"}
    page = (tmp_path / "report.html").read_text()
    assert "No picture was asked for." in page
    for text in (page, printed.get()):
        assert all(f"figure{number}: no " in " ".join(text.split()) for number in (3, 6, 7))


def test_claims_that_do_not_hold_come_first_and_are_not_all_named(tmp_path, quick):
    worse = [one for one in evidence(seeds=1).rows if one.result.role in ("salvage", "rise", "grad_cam", "random")]
    swapped = {"salvage": "random", "random": "salvage"}
    rows = [
        measured(swapped.get(one.result.role, one.result.role), tensors=one.tensors, metrics=one.result.metrics)
        for one in worse
    ]
    write(tmp_path, Evidence(tuple(rows)))
    with console.capture():
        present(runtime(), tmp_path, None, "run")
    (summary,) = re.findall(r'class="summary">(.*?)</div>', (tmp_path / "report.html").read_text(), flags=re.DOTALL)
    assert "What does not hold: SALVAGE is ahead of RISE in SRG; " in summary
    assert "; and 6 more." in summary


def test_an_empty_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="run first"):
        present(runtime(), tmp_path, None, "run")
