"""Results together with the tensors beside them, for what needs each image by itself: curves, maps, paired tests."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.results import RESULT_FILE, Result, read_result, read_tensors

CURVES = ("lif", "mif", "r_lif", "r_mif")
"""Tensors [N, M] of a result: entry i - 1 is the value with i patches present (Algorithms 1 and 2)."""
GAINS = {"srg": ("lif", "mif"), "r_srg": ("r_lif", "r_mif")}
"""Metrics that are one curve less another (equations 7 and 8)."""
SPREADS = {"spread_informed": "informed", "spread_random": "random"}
"""Mean distance from one half of likelihoods [N, M] over the sizes of masks: 0 where all sizes are balanced."""


@dataclass(frozen=True)
class Measured:
    """A result and its tensors."""

    result: Result
    tensors: Mapping[str, Tensor]

    def curve(self, metric: str) -> Tensor | None:
        """Values of each image by the number of patches present, float64 [N, M]; None where they were not kept."""
        if metric in GAINS:
            gain, loss = (self.curve(name) for name in GAINS[metric])
            return None if gain is None or loss is None else gain - loss
        values = self.tensors.get(metric)
        return values.double() if metric in CURVES and values is not None else None

    def per_image(self, metric: str) -> Tensor | None:
        """The metric of each image, float64 [N], NaN where undefined; None where the result does not hold it.

        Means of the curves, agreement of the predictions, else the tensor [N] of that name.
        """
        curve = self.curve(metric)
        if curve is not None:
            return curve.mean(1)
        if metric in ("accuracy", "agreement"):
            mine = self.predictions("logits")
            other = self.tensors.get("labels") if metric == "accuracy" else self.predictions("classifier_logits")
            return None if mine is None or other is None else (mine == other).double()
        if metric in SPREADS:
            likelihood = self.tensors.get(SPREADS[metric])
            return None if likelihood is None else (likelihood.double() - 0.5).abs().mean(1)
        values = self.tensors.get(metric)
        return values.double() if values is not None and values.ndim == 1 else None

    def mean(self, metric: str) -> float:
        """The metric over all images: as the result says, else of its tensor; NaN where it has neither."""
        if metric in self.result.metrics:
            return self.result.metrics[metric]
        values = self.per_image(metric)
        return math.nan if values is None else values.nanmean().item()

    def predictions(self, name: str) -> Tensor | None:
        """Classes [N] out of logits [N, C]; None where they were not kept."""
        logits = self.tensors.get(name)
        return None if logits is None else logits.argmax(1)


@dataclass(frozen=True)
class Evidence:
    """All that one or more runs left behind.

    Attributes:
        rows: The rows of the tables and the likelihood of masks.
        length: Rows trained for a share of the time (SALVAGE's Figure 7); their `params` hold `share`.
        steps: Rows trained on paths of other numbers of points (Learn to Rank, Figure 3b); `path_steps`.
        refinement: Rows after further numbers of gradient steps (Learn to Rank, Figure 3a); `refined`.
        shortcut: What maps find of a mark put on one class (Learn to Rank, Figure 5).
    """

    rows: tuple[Measured, ...]
    length: tuple[Measured, ...] = ()
    steps: tuple[Measured, ...] = ()
    refinement: tuple[Measured, ...] = ()
    shortcut: tuple[Measured, ...] = ()

    def by_data(self) -> dict[str, "Evidence"]:
        """The same, each data set by itself."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        names = dict.fromkeys(row.result.data for row in self.rows)
        return {name: Evidence(**{part: _of(rows, name) for part, rows in parts.items()}) for name in names}


def read_evidence(folders: Sequence[Path]) -> Evidence:
    """What lies in each run's folder: the rows under `results`, the other parts under their own names.

    Raises:
        UserError: No folder has results, or one cannot be read.
    """
    under = {part.name: "results" if part.name == "rows" else part.name for part in fields(Evidence)}
    parts = {
        part: tuple(row for folder in folders for row in _read(Path(folder) / name)) for part, name in under.items()
    }
    if not parts["rows"]:
        raise UserError(f"no {RESULT_FILE} under results of {', '.join(map(str, folders)) or 'no folder'}; run first")
    return Evidence(**parts)


def by_run(rows: Sequence[Measured], role: str) -> dict[tuple[str, int], Measured]:
    """The rows of one role by model and seed, which pair them with those of another."""
    return {(row.result.model, row.result.seed): row for row in rows if row.result.role == role}


def same_images(a: Measured, b: Measured) -> bool:
    """Whether two results were measured on the same images, as far as labels and regions tell."""
    if a.result.n_images != b.result.n_images:
        return False
    shared = [name for name in ("labels", "regions") if name in a.tensors and name in b.tensors]
    return all(torch.equal(a.tensors[name], b.tensors[name]) for name in shared)


def image_values(rows: Sequence[Measured], values: Sequence[Tensor]) -> Tensor:
    """Values of images [n] out of those of each row, [N] each: averaged over rows of the same images, NaN left out.

    Rows that show different images give all of theirs.
    """
    shared = all(same_images(rows[0], row) for row in rows[1:])
    images = torch.stack(list(values)).nanmean(0) if shared else torch.cat(list(values))
    return images[images.isfinite()]


def _read(root: Path) -> list[Measured]:
    folders = sorted(path.parent for path in root.rglob(RESULT_FILE))
    return [Measured(read_result(folder), read_tensors(folder)) for folder in folders]


def _of(rows: Sequence[Measured], data: str) -> tuple[Measured, ...]:
    return tuple(row for row in rows if row.result.data == data)
