"""The experiments across the papers are what can be run: their settings, rows and tables fit together."""

import hydra
import pytest

from xai.app import check
from xai.core.composing import CONF
from xai.core.overrides import overrides, typed_keys
from xai.metrics.registry import columns
from xai.report.layout import read_table
from xai.study.params import StudySettings, open_metrics, open_rows
from xai.sweeps.jobs import axes_of


@pytest.mark.parametrize(("name", "rows"), [("mixed_budget", 20), ("mixed_transfer", 15), ("mixed_supervision", 5)])
def test_the_first_job_of_each(name: str, rows: int) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        first = [axis[0] for axis in axes_of([f"sweep={name}"], [], "config")]
        _, settings = check(hydra.compose("config", first), typed_keys(overrides(first)))
    assert isinstance(settings, StudySettings)
    found = open_rows(settings.rows, settings.explainers)
    assert len({row.label for row in found}) == len(found) == rows
    assert open_metrics(settings.metrics, settings.metric)
    for table in settings.tables:
        assert set(read_table(CONF / "table" / f"{table}.yaml").columns) <= {*columns(), "passes", "milliseconds"}
