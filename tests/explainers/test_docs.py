"""docs/explainers.md says what is so: its table is the registry."""

import re
from dataclasses import fields
from pathlib import Path

from tests.explainers.settings import NAMES
from xai.explainers.registry import entry

PAGE = (Path(__file__).parents[2] / "docs" / "explainers.md").read_text(encoding="utf-8")


def test_the_table_is_the_registry() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \| (.*) \|$", PAGE.split("## Shapley values")[0], flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == NAMES
    for name, settings in rows:
        assert set(re.findall(r"`(\w+)`", settings)) == {field.name for field in fields(entry(name).params)}
