"""The columns of the tables: the metrics, which way is better, and what each of them asks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A metric.

    Attributes:
        name: In result.json.
        label: In a table.
        short: In a table where there is little room.
        larger_is_better: Which way is better.
        explanation: What it asks.
        scale: What the number of result.json is multiplied by in a table, so 100 where a share is read in percent.
        digits: Digits after the point.
    """

    name: str
    label: str
    short: str
    larger_is_better: bool
    explanation: str
    scale: float = 1.0
    digits: int = 3

    @property
    def arrow(self) -> str:
        """Which way is better."""
        return "↑" if self.larger_is_better else "↓"


def _iou(k: int) -> Column:
    explanation = f"Overlap of the top {k} patches of map and reference, as intersection over union."
    return Column(f"iou@{k}", f"IoU@{k}", f"IoU@{k}", True, explanation)


_COLUMNS = (
    Column("accuracy", "Accuracy", "Acc.", True, "Share of images classified correctly."),
    Column(
        "e_rmse",
        "E-RMSE",
        "E-RMSE",
        False,
        "Distance to the reference map, both normalised to mean 0 and deviation 1 per image: 0 is the same map, 1 a "
        "constant one, 1.41 an unrelated one, 2 the opposite.",
    ),
    Column(
        "kendall",
        "Rank corr.",
        "Rank",
        True,
        "Kendall's tau-b between the order of the patches in map and reference: 1 is the same order, 0 is unrelated.",
    ),
    Column("iou@1", "IoU@1", "IoU@1", True, "Share of images whose top patch is that of the reference."),
    _iou(5),
    _iou(10),
    Column(
        "centred_correlation",
        "Centred corr.",
        "Centr.",
        True,
        "Correlation with the reference after taking from each its mean over all images, so that what is always at "
        "the same place earns nothing.",
    ),
    Column(
        "rma",
        "RMA",
        "RMA",
        True,
        "Relevance mass accuracy: share of the positive attribution that lies inside the object.",
    ),
    Column(
        "pointing_game",
        "Pointing game",
        "Point.",
        True,
        "Share of images whose top patch touches the object.",
    ),
)
COLUMNS = {column.name: column for column in _COLUMNS}
"""Metrics of a transfer by name, in the order of the table."""
