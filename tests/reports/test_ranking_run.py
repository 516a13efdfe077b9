import csv
import io
import re

import pytest

from tests.reports.ranking_rows import evidence, write
from tests.reports.test_html import PIXEL
from tests.reports.test_ranking_pictures import PICTURES, SHORTCUT
from tests.reports.test_removal_run import Logger
from tests.stages.bench import runtime
from xai.core.progress import console
from xai.reports import ranking_figures, ranking_pictures, removal_pictures
from xai.reports.claim_renderers import tally
from xai.reports.claims import judge
from xai.reports.measured import Evidence
from xai.reports.ranking_claims import CLAIMS
from xai.reports.ranking_run import present

FIGURES = {"figure3a", "figure3b", "figure5", "figure6"}
SHEETS = {"figure4", "figure5-pictures", "pictures"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Figures that are not drawn out."""
    for module in (ranking_figures, ranking_pictures, removal_pictures):
        monkeypatch.setattr(module, "to_png", lambda figure: PIXEL)


def test_the_folder_holds_tables_claims_figures_and_a_page(tmp_path):
    found, logger = evidence(seeds=1), Logger()
    write(tmp_path, found)
    with console.capture() as printed:
        present(runtime(logger), tmp_path, PICTURES, SHORTCUT, "python run.py method=ranking", {"training": "12 s"})
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == FIGURES | SHEETS
    rows = {line["role"]: line for line in csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text()))}
    for metric, value in next(o.result.metrics for o in found.rows if o.result.role == "ranking").items():
        assert float(rows["ranking"][metric]) == pytest.approx(value if metric == "class_correlation" else 100 * value)
    assert float(rows["ranking"]["seconds_per_image"]) == pytest.approx(2)
    titles = re.findall(r"^\*\*(.*)\*\*$", (tmp_path / "table.md").read_text(), flags=re.MULTILINE)
    assert [title.split(" · ")[0] for title in titles] == [
        "Deletion and insertion",
        "Each reference alone, predicted class",
        "Each reference alone, true class",
        "Localisation",
    ]
    assert tally(judge(found, CLAIMS)) in (tmp_path / "claims.md").read_text()
    page = (tmp_path / "report.html").read_text()
    for text in ("Ranking, maps refined, T = 3", "ms an image", "Figure 4. Maps after", "training", "one seed, so no"):
        assert text in page
    assert page.count("data:image/png") == len(FIGURES | SHEETS)
    for text in (*titles, "Ranking less each other row", "report.html"):
        assert text in printed.get()
    assert logger.status == "success"


def test_what_is_missing_is_said_and_nothing_breaks(tmp_path):
    write(tmp_path, Evidence(tuple(o for o in evidence(seeds=1).rows if o.result.role in ("ranking", "random"))))
    with console.capture() as printed:
        present(runtime(), tmp_path, None, None, "run")
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"figure6"}
    page = (tmp_path / "report.html").read_text()
    assert "No picture was asked for." in page
    for text in (page, printed.get()):
        assert all(f"figure{name}: no " in " ".join(text.split()) for name in ("3a", "3b", "5"))
