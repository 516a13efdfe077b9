"""The page of `method=transfer`: sentences, Table 1, Figures 3 and 4, and how it was made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xai.reports.columns import COLUMNS
from xai.reports.figures import MapColumn, explanation_grid, lambda_sweep
from xai.reports.headline import headline
from xai.reports.html import Block, Code, Definitions, Picture, Prose, Section, TableBlock, write_report
from xai.reports.renderers import number
from xai.reports.roles import ROLES
from xai.reports.tables import describe, sweep_table, transfer_table
from xai.results import Result

__all__ = ["headline", "write_transfer_report"]

REPORT = "report.html"


def write_transfer_report(
    folder: Path,
    results: Sequence[Result],
    sweep: Sequence[Result],
    ft_target: Result | Sequence[Result],
    chosen: float,
    pictures: Mapping[str, Any],
    command: str,
    notes: Mapping[str, str],
) -> Path:
    """Write `folder`/report.html.

    Args:
        folder: Made where it is missing.
        results: The rows of the table.
        sweep: The proposed model at every lambda2, on the test split.
        ft_target: The model fine-tuned on the target, one per run.
        chosen: The lambda2 of the table.
        pictures: What to show: `images` uint8 [n, 3, H, W], `labels` [n], `class_names`, and `columns`, each a label,
            maps [n, h, w], and predicted classes [n] or None; the reference is the first column.
        command: What was typed.
        notes: Whatever else is to be kept: by name, its text.

    Returns:
        The path of the page.

    Raises:
        UserError: Results that no table or figure can be made of, or a folder that cannot be written.
    """
    images = pictures["images"]
    small = images.shape[-1] if images.ndim == 4 and len(images) else None
    sections = [
        Section("The table", [TableBlock(transfer_table(results))]),
        Section("How much of the vector", _sweep_blocks(sweep, ft_target, chosen)),
        Section("What the maps look like", _picture_blocks(pictures)),
        Section("Rows and metrics", [Definitions(_glossary(results))]),
        Section("How this was made", [Code(command), Definitions([*notes.items(), *_cost(results)])]),
    ]
    return write_report(
        folder / REPORT,
        "Explanations by task arithmetic",
        headline(results, chosen, small),
        sections,
        describe(results),
    )


def _sweep_blocks(sweep: Sequence[Result], ft_target: Result | Sequence[Result], chosen: float) -> list[Block]:
    alt = f"Three line plots over lambda2: E-RMSE, IoU@10 and accuracy, with {chosen:g} marked."
    caption = (
        "Each panel is divided by what fine-tuning on the target alone gives (dashed line at 1); the right axis is the "
        "value itself. Look for a stretch where the error has fallen and the accuracy has not. λ2 was chosen on the "
        "validation split; these are the test images. No point of the curves needed any training."
    )
    return [Picture(lambda_sweep(sweep, ft_target, chosen), alt, caption, 860), TableBlock(sweep_table(sweep, chosen))]


def _picture_blocks(pictures: Mapping[str, Any]) -> list[Block]:
    images, columns = pictures["images"], [MapColumn(*column) for column in pictures["columns"]]
    if not len(images) or not columns:
        return [Prose(["No picture was asked for."])]
    patches = columns[0].maps[0].numel()
    k = max(1, min(10, patches // 4))
    png = explanation_grid(images, columns, pictures["labels"], pictures["class_names"], k)
    alt = f"{len(images)} images, each with the heat maps and top patches of: {', '.join(c.label for c in columns)}."
    caption = (
        "Above, evidence for the image's class: red is more than the map's mean, blue less, grey says nothing. Below, "
        f"the {k} highest of {patches} patches. Under each map, what that model predicts. Compare each column with the "
        "reference, and ask what the map would have to know: its place, its brightness, or its class."
    )
    return [Picture(png, alt, caption, 110 * (len(columns) + 1))]


def _glossary(results: Sequence[Result]) -> list[tuple[str, str]]:
    present = {result.role for result in results}
    measured = {name for result in results for name in result.metrics}
    rows = [(r.label, r.explanation) for r in ROLES.values() if r.name in present or r.kind == "chance"]
    columns = [(f"{c.label} {c.arrow}", c.explanation) for c in COLUMNS.values() if c.name in measured]
    return rows + columns


def _cost(results: Sequence[Result]) -> list[tuple[str, str]]:
    seconds, memory = sum(r.seconds for r in results), max(r.peak_memory_bytes for r in results)
    images = sorted({result.n_images for result in results})
    return [
        ("images measured", " or ".join(f"{n:,}" for n in images)),
        ("evaluation of the table", f"{number(seconds, 1)} s"),
        ("peak memory", f"{memory / 2**20:,.0f} MiB"),
    ]
