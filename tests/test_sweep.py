"""`python -m xai.sweep`: its page takes the place of the last one whole."""

from pathlib import Path

import pytest

from xai import sweep
from xai.core.errors import UserError


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
