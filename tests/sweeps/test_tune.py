"""`task=tune`: what it tries, what it keeps, and what it refuses; tests/end_to_end has it over real networks."""

import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.report.study_frames import scores
from tests.sweeps.conftest import Sweeping
from tests.toolbox import cases
from xai.report import tuned
from xai.report.site.charts import chart_of
from xai.study.frame import Frames
from xai.sweeps import tune

optuna = pytest.importorskip("optuna", reason="task=tune: pip install -e '.[optuna]'")
ASKED = ("task=tune", "experiment=vectors_tuned", "name=tuned", "logger=none")


def shaped(alpha: float, lambda2: float) -> dict[str, float]:
    """More of the vector explains better and classifies worse."""
    return {"accuracy": 0.9 - 0.2 * lambda2**2 * alpha, "e_rmse": 1.4 - 0.5 * lambda2 * alpha**0.5}


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The studies that the trials are; their networks are a formula."""
    asked: list[Any] = []

    def measure(settings: Any, runtime: object) -> Frames:
        asked.append(settings)
        if settings.study != "vectors":
            means = {row: dict.fromkeys(settings.metrics, 0.4) for row in settings.rows}
            return Frames(scores(means, seeds=(0,)), *[pd.DataFrame()] * 3)
        values = {row: shaped(0.0, 0.0) for row in settings.rows}
        values[settings.rows[0]] = shaped(settings.transfer.alpha, settings.transfer.lambda2)
        return Frames(scores(values, seeds=(0,)), pd.DataFrame(), pd.DataFrame(), pd.DataFrame())

    monkeypatch.setattr(tune, "measured", measure)
    return asked


def test_the_front_is_what_no_other_trial_beats(
    sweep: Sweeping, measured: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*ASKED, "trials=5") == 0
    tried, front = (pd.read_csv(f"outputs/tuned/{name}.csv") for name in ("trials", "front"))
    pairs = list(zip(tried["accuracy"], tried["e_rmse"], strict=True))

    def is_beaten(pair: tuple[float, float]) -> bool:
        return any(a >= pair[0] and e <= pair[1] and (a, e) != pair for a, e in pairs)

    assert len(tried) == 5
    assert list(tried["front"]) == [not is_beaten(pair) for pair in pairs]
    assert set(front["trial"]) <= set(tried.loc[tried["front"], "trial"])
    assert front["accuracy"].is_monotonic_decreasing
    assert front["e_rmse"].is_monotonic_decreasing
    assert set(tried["transfer.alpha"]) <= {0.2, 0.4, 0.6, 0.8}
    assert tried["transfer.lambda1"].between(0.6, 1.2).all()
    assert {suffix for suffix in ("png", "svg") if Path(f"outputs/tuned/figures/trade_off.{suffix}").is_file()} == {
        "png", "svg",
    }  # fmt: skip
    # The row beside is measured once, on the validation split.
    assert [each.rows for each in measured[:2]] == [("proposed", "ft_target"), ("proposed",)]
    assert {each.case.split for each in measured} == {"validation"}
    assert [each.transfer.lambda2_grid for each in measured] == [(each,) for each in tried["transfer.lambda2"]]
    before = Path("outputs/tuned/trials.csv").read_text().splitlines()
    assert sweep(*ASKED, "trials=2") == 0
    # Which of the two no other beats is another question.
    after = Path("outputs/tuned/trials.csv").read_text().splitlines()
    assert [line.rpartition(",")[0] for line in after] == [line.rpartition(",")[0] for line in before[:3]]
    assert "what no other trial beats" in capsys.readouterr().out


def test_the_front_is_a_figure_of_the_page_and_of_the_site(sweep: Sweeping) -> None:
    assert sweep(*ASKED, "trials=4") == 0
    report = Path("outputs/tuned/report.html").read_text()
    tried, front = (pd.read_csv(f"outputs/tuned/{name}.csv") for name in ("trials", "front"))
    assert report.count("data:image/png") == 1
    assert all(f">{each:.4g}<" in report for each in front["accuracy"])
    points = {
        (x, y): words
        for trace in chart_of(tuned.figure_of(Path("outputs/tuned")))["data"]
        for x, y, words in zip(trace["x"], trace["y"], trace.get("text", ()), strict=False)
    }
    for line in tried.to_dict("records"):
        found = next(
            words for (x, y), words in points.items() if abs(x - line["accuracy"]) + abs(y - line["e_rmse"]) < 1e-3
        )
        assert f"transfer.alpha={line['transfer.alpha']}, " in found
    pytest.importorskip("plotly", reason="task=site: pip install -e '.[site]'")
    assert sweep("task=site") == 0
    page = Path("outputs/site/tuned.html").read_text()
    assert tuned.TITLE in page
    assert "<img" not in page
    Path("outputs/tuned/beside.csv").write_text("odd\n1\n")
    assert sweep("task=site") == 0
    assert "is not what task=tune wrote" in Path("outputs/site/tuned.html").read_text()


def test_the_temperature_of_salvage_is_searched(sweep: Sweeping, measured: list[Any]) -> None:
    assert sweep("experiment=salvage_tuned", "logger=none", "trials=4") == 0
    tried = pd.read_csv("outputs/salvage_tuned/trials.csv")["explainers.salvage.temperature"]
    assert [each.explainers["salvage"]["temperature"] for each in measured] == list(tried)
    assert tried.isin([0.25, 0.5, 1.0, 2.0, 4.0]).all()
    assert measured[0].rows == ("salvage", "kernel_shap", "random")


def test_a_number_that_is_listed_is_tried_with_all_its_digits(sweep: Sweeping, measured: list[Any]) -> None:
    listed = "over={explainers.salvage.temperature:[0.123456789]}"
    assert sweep("experiment=salvage_tuned", "logger=none", "trials=1", listed) == 0
    assert measured[0].explainers["salvage"]["temperature"] == 0.123456789


def test_the_search_that_the_documentation_shows_is_one(sweep: Sweeping, measured: list[Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "explainability_vectors.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"`(task=tune study=ranking\s[^`]*)`", page)
    assert sweep(*shlex.split(shown), "logger=none", "trials=3") == 0
    tried = pd.read_csv("outputs/mine/trials.csv")["explainers.ranking.loss.temperature_end"]
    assert [each.explainers["ranking"]["loss"]["temperature_end"] for each in measured] == list(tried)
    assert [each.rows for each in measured[:2]] == [("ranking", "random"), ("ranking",)]


@pytest.mark.parametrize(("typed", "said"), cases(__file__, "refused_searches.txt"))
def test_what_is_wrong_is_said(sweep: Sweeping, capsys: pytest.CaptureFixture[str], typed: str, said: str) -> None:
    assert sweep(*(() if typed.startswith("task=") else ASKED), *typed.split()) == 2
    assert said in capsys.readouterr().err
    assert not Path("outputs/tuned").exists()
