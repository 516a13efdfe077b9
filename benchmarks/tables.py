"""Markdown tables of what was measured."""

import statistics
from collections.abc import Sequence

from benchmarks.harness import Measurement


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


def failed(rows: Sequence[Measurement], where: str) -> list[str]:
    """One line for each contender that failed."""
    return [f"{where}: {row.name} failed: {row.failure}" for row in rows if row.failure is not None]


def products(peak: float | None) -> str:
    """A sentence on the rate of matrix products of the card, where there is one."""
    return "" if peak is None else f" Large matrix products: {peak / 1e12:.3g} TFLOP/s."


def share(row: Measurement, peak: float) -> str:
    """Part of the rate of matrix products `peak` [FLOP/s] that the median round achieved."""
    return "–" if row.flops is None else f"{100 * row.flops / row.median / peak:.0f} %"
