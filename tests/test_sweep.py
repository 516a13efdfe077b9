"""`python -m xai.sweep`: its page takes the place of the last one whole."""

from pathlib import Path

import hydra
import pytest

from xai import sweep
from xai.app import check
from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.overrides import overrides, typed_keys
from xai.metrics.registry import columns
from xai.report.layout import read_table
from xai.report.sweeps import read_sweep
from xai.study.params import StudySettings, open_rows


def test_the_page_of_a_sweep_is_published_whole_and_a_failed_one_leaves_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text("{title: a, about: b, common: [], grid: [[[seed=0]]]}")
    final = Path("outputs/toy")

    def run(asked: object, folder: Path, typed: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores.csv").write_text("of the run")

    def show(number: int, fails: bool) -> None:
        def written(asked: object, folders: object, output: Path, typed: str) -> Path:
            (output / "results").mkdir()
            (output / "results" / "tables.csv").write_text(str(number))
            assert number == 0 or (final / "results" / "tables.csv").read_text() == "0"
            if fails:
                raise UserError("wrong")
            (output / "report.html").write_text(str(number))
            return output / "report.html"

        monkeypatch.setattr(sweep, "show", written)
        sweep.main(["toy.yaml"])

    monkeypatch.setattr(sweep, "run", run)
    show(0, fails=False)
    with pytest.raises(UserError, match="wrong"):
        show(1, fails=True)
    for page in (final / "report.html", final / "results" / "tables.csv"):
        assert page.read_text() == "0"
    show(2, fails=False)
    for page in (final / "report.html", final / "results" / "tables.csv"):
        assert page.read_text() == "2"
    assert (final / "seed=0" / "scores.csv").read_text() == "of the run"


@pytest.mark.parametrize("name", ["mixed_budget", "mixed_transfer", "mixed_supervision"])
def test_the_experiments_across_the_papers_are_what_can_be_run(name: str) -> None:
    wanted = read_sweep(Path(__file__).parents[1] / "sweeps" / f"{name}.yaml")
    given = overrides(wanted.runs()[-1])
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", overrides=given)
    _, settings = check(config, typed_keys(given))
    assert isinstance(settings, StudySettings)
    rows = open_rows(settings.rows, settings.explainers)
    assert len({row.label for row in rows}) == len(rows), "each has a label of its own"
    for table in {*wanted.tables, *settings.tables}:
        assert set(read_table(CONF / "table" / f"{table}.yaml").columns) <= {*columns(), "passes", "milliseconds"}
