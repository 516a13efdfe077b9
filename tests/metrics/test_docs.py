"""docs/comparison.md says what is so: its table has all metrics, with their columns."""

import re
from pathlib import Path

from xai.metrics import registry

PAGE = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text(encoding="utf-8")


def test_the_table_names_every_metric_and_its_columns() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE, flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(registry.names())
    for name, said in rows:
        entry = registry.entry(name)
        columns = {column.name for column in entry.columns_of(entry.params())}
        named = set(re.findall(r"`([\w@]+)`", said)) - {"r_"}
        # Of one way of removing pixels alone, and relative forms, there are more than a table holds.
        assert named <= columns
        assert all(re.match(r"r_|.*_(true|black|mean|blur)\b", column) for column in columns - named), name
