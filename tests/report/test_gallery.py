"""Which maps the pictures of a study take from what was measured, and which they have made."""

from pathlib import Path

import pytest

from tests.study.engine import made, study
from xai.report.present import pictures_of


@pytest.mark.parametrize(("metric", "more"), [("class_correlation", 0), ("localisation", 1)])
def test_maps_of_the_second_class_are_made_where_no_metric_had_them(tmp_path: Path, metric: str, more: int) -> None:
    measured = study(tmp_path, ["rise"], [metric])
    measured.run()
    before = made(measured).count("maps")
    (picture,) = pictures_of(measured, 2)
    assert picture.png
    assert made(measured).count("maps") == before + more
    # What the classifier says of the images of pictures is known from what it says of all.
    assert [artifact.kind for artifact in measured.cases[0][0].runtime.store.made].count("logits") == 1
