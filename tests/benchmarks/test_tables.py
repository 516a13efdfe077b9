from benchmarks.harness import Measurement
from benchmarks.tables import mebibytes, ratio, share, table


def test_a_table_is_aligned_markdown() -> None:
    text = table(["name", "×"], [["a", "1.00"], ["longer", "12"]])
    assert text.splitlines() == ["| name   |    × |", "| ------ | ---: |", "| a      | 1.00 |", "| longer |   12 |"]


def test_a_ratio_has_a_range_where_there_are_rounds_to_range_over() -> None:
    floor = Measurement("floor", seconds={0: 2.0, 1: 4.0, 2: 1.0})
    assert ratio(Measurement("once", seconds={1: 6.0}), floor) == "1.50"
    assert ratio(Measurement("thrice", seconds={0: 2.0, 1: 16.0, 2: 2.0}), floor) == "2.00 (1.00–4.00)"


def test_memory_and_share_of_the_card() -> None:
    row = Measurement("a", seconds={0: 4.0}, peak=5 << 20, flops=10**9)
    assert mebibytes(row) == "5 MiB"
    assert share(row, 1e9) == "25 %"
    assert share(Measurement("b", seconds={0: 4.0}), 1e9) == "–"
