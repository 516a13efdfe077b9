"""Markdown tables of what was measured."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness import Measurement


@dataclass(frozen=True)
class Report:
    """What a script found.

    Args:
        text: Markdown.
        faults: What went wrong, one line each; a goal that is missed is none.
    """

    text: str
    faults: tuple[str, ...] = ()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, padded so that it reads as it is: names to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        aligned[0] = cells[0].ljust(widths[0])
        return f"| {' | '.join(aligned)} |"

    rule = [f"{'-' * (width - 1)}:" for width in widths]
    rule[0] = "-" * widths[0]
    return "\n".join([line(head), f"| {' | '.join(rule)} |", *map(line, rows)])


def ratio(row: Measurement, reference: Measurement) -> str:
    """Median of the ratios of single rounds, and their range where there is more than one round."""
    ratios = row.ratios(reference)
    spread = f" ({min(ratios):.2f}–{max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.2f}{spread}"


def mebibytes(row: Measurement) -> str:
    """Peak memory."""
    return f"{row.peak / 2**20:.0f} MiB"


def share(row: Measurement, peak: float) -> str:
    """Part of the rate of matrix products `peak` [FLOP/s] that the median round achieved."""
    return "–" if row.flops is None else f"{100 * row.flops / row.median / peak:.0f} %"
