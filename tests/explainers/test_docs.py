"""docs/explainers.md says what is so: its table is the registry."""

import re
from dataclasses import fields
from pathlib import Path

from tests.explainers.settings import NAMES
from xai.explainers.registry import entry
from xai.explainers.rows import load_row

PAGE = (Path(__file__).parents[2] / "docs" / "explainers.md").read_text(encoding="utf-8")


def test_the_table_is_the_registry() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \| (.*) \|$", PAGE.split("## Shapley values")[0], flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == NAMES
    for name, settings in rows:
        assert set(re.findall(r"`(\w+)`", settings)) == {field.name for field in fields(entry(name).params)}


def test_the_cost_of_ranking_counts_what_its_decoder_looks_at() -> None:
    assert re.search(r"^\| `ranking` \| .* \| 4, .*; 1 .*, 37 of `ranking_path` \| .* \|$", PAGE, flags=re.MULTILINE)
    rows = map(load_row, ("ranking", "ranking_published", "ranking_path"))
    assert [row.entry.info.passes(row.params, 36) for row in rows] == [4, 1, 37]
