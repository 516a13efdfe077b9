"""Results together with the tensors beside them, for what needs each image by itself: curves, maps, paired tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from xai.errors import UserError
from xai.results import RESULT_FILE, Result, read_result, read_tensors

CURVES = ("lif", "mif", "r_lif", "r_mif")
"""Tensors [N, M] of a result: entry i - 1 is the value with i patches present (Algorithms 1 and 2)."""
GAINS = {"srg": ("lif", "mif"), "r_srg": ("r_lif", "r_mif")}
"""Metrics that are one curve less another (equations 7 and 8)."""


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
        values = self.tensors.get(metric)
        return values.double() if values is not None and values.ndim == 1 else None

    def predictions(self, name: str) -> Tensor | None:
        """Classes [N] out of logits [N, C]; None where they were not kept."""
        logits = self.tensors.get(name)
        return None if logits is None else logits.argmax(1)


@dataclass(frozen=True)
class Evidence:
    """All that one or more runs left behind.

    Attributes:
        rows: The rows of the tables and the likelihood of masks.
        length: Rows trained for a share of the time (Figure 7); their `params` hold `share`.
    """

    rows: tuple[Measured, ...]
    length: tuple[Measured, ...] = ()

    def by_data(self) -> dict[str, "Evidence"]:
        """The same, each data set by itself."""
        names = dict.fromkeys(row.result.data for row in self.rows)
        return {name: Evidence(_of(self.rows, name), _of(self.length, name)) for name in names}


def read_evidence(folders: Sequence[Path]) -> Evidence:
    """What lies under `results` and `length` of each run's folder.

    Raises:
        UserError: A folder has no results, or one cannot be read.
    """
    rows = [row for folder in folders for row in _read(Path(folder) / "results")]
    if not rows:
        raise UserError(f"no {RESULT_FILE} under results of {', '.join(map(str, folders)) or 'no folder'}; run first")
    return Evidence(tuple(rows), tuple(row for folder in folders for row in _read(Path(folder) / "length")))


def by_run(rows: Sequence[Measured], role: str) -> dict[tuple[str, int], Measured]:
    """The rows of one role by model and seed, which pair them with those of another."""
    return {(row.result.model, row.result.seed): row for row in rows if row.result.role == role}


def _read(root: Path) -> list[Measured]:
    folders = sorted(path.parent for path in root.rglob(RESULT_FILE))
    return [Measured(read_result(folder), read_tensors(folder)) for folder in folders]


def _of(rows: Sequence[Measured], data: str) -> tuple[Measured, ...]:
    return tuple(row for row in rows if row.result.data == data)
