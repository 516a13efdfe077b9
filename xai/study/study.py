"""A study: rows x cases x metrics, measured together with every process that measures the same."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from rich.markup import escape

from xai.core.errors import Busy, UserError
from xai.core.progress import console
from xai.explainers.registry import Row, refusal
from xai.study.case import Case
from xai.study.frame import Frames, Measurement, frames
from xai.study.maps import explain
from xai.study.scores import Chosen, columns_missing, missing, score, wants_second

log = logging.getLogger(__name__)

_PAUSE = 0.5
_WORTH_A_LINE = 1.0

T = TypeVar("T")


@dataclass
class Study:
    """What is measured.

    Args:
        rows: Explainers, in the order of the tables.
        cases: What they explain, and which metrics each case is for.
        others: Rows that are not measured, but whose maps a row may be made from, by name.
        reference: Name of the row whose maps are the truth, where there is one.
        strict: Refuse a row that does not fit; otherwise it is left out, with the reason.
    """

    rows: Sequence[Row]
    cases: Sequence[tuple[Case, Sequence[Chosen]]]
    others: Mapping[str, Row] = field(default_factory=dict)
    reference: Row | None = None
    strict: bool = False
    unfit: dict[str, str] = field(default_factory=dict)
    """Why rows were left out, by name."""

    def __post_init__(self) -> None:
        """Refuse two rows of one name."""
        names = [row.name for row in self.rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"rows: {twice[0]} is named twice: name each row once")
        self.rows = _called_apart(self.rows)
        self.tell()

    def tell(self) -> None:
        """Tell the cases of all rows, which may be made from each other's maps."""
        known = {**self.others, **{row.name: row for row in self.rows}}
        self.cases = [(replace(case, others=known), metrics) for case, metrics in self.cases]

    def run(self) -> Frames:
        """Measure what is missing, find the rest.

        What another process is making meanwhile is come back to when nothing else is left.

        Raises:
            UserError: No row fits, or no metric of any; or `strict`, and a row does not fit.
        """
        self._leave_out()
        start = time.perf_counter()
        tasks = [self.measuring(case, row) for row in self.measured_rows for case, _ in self.cases]
        impatient = self.cases[0][0].runtime.store.impatient
        found = [each for each in together(tasks, impatient) if each is not None]
        self._check_left()
        seconds = time.perf_counter() - start
        if seconds >= _WORTH_A_LINE:
            case = self.cases[0][0]
            what = f"{len(self.measured_rows)} rows on {len(case.rows)} images of {case.data.name} {case.split}"
            console.print(f"  [green]measured[/] {escape(what)} [dim]({seconds:.0f} s)[/]", highlight=False)
        measured = frames(found)
        if measured.scores.empty and len(measured.left_out):
            raise UserError(f"nothing could be measured: {'; '.join(measured.left_out['reason'].unique())}")
        return measured

    @property
    def measured_rows(self) -> list[Row]:
        """The rows that fit."""
        return [row for row in self.rows if row.name not in self.unfit]

    def _leave_out(self) -> None:
        """Find out which rows do not fit, before any work."""
        case = self.cases[0][0]
        for row in self.rows:
            reason = refusal(row.entry, row.params, case)
            if reason is not None and self.strict:
                raise UserError(f"rows: {row.name}: {reason}")
            if reason is not None:
                self.unfit[row.name] = reason
        self._check_left()

    def _check_left(self) -> None:
        """Refuse to go on without any row."""
        if not self.measured_rows:
            first = self.rows[0].name
            raise UserError(f"none of the explainers fits: {first}: {self.unfit[first]}")

    def measuring(self, case: Case, row: Row) -> Callable[[], Measurement | None]:
        """What measures a row on a case; where it gives None, it has told in `unfit` why."""
        chosen = next(metrics for each, metrics in self.cases if each is case)

        def measure() -> Measurement:
            second = case.second if wants_second(case, chosen, self.reference) else None
            maps, scores = explain(case, row, second), {}
            beside = case.second if wants_second(case, chosen, self.reference, "reference_second") else None
            left_out: dict[str, str] = {}
            for each in chosen:
                reason = missing(case, row, maps, each, self.reference)
                if reason is None:
                    scores[each.metric.name] = score(case, row, maps, each, self.reference, beside)
                    left_out |= columns_missing(case, row, maps, each, self.reference)
                else:
                    left_out[each.metric.name] = reason
            return Measurement(case, row, maps, scores, left_out)

        return measure


def _called_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows, of those that are called alike the later ones with their names; one at other settings (`@`) stays as it is.

    Sheets of pictures, legends and whoever groups a frame by `label` would take them for one.
    """
    taken: set[str] = set()
    found = []
    for row in rows:
        if "@" not in row.name:
            row = replace(row, label=f"{row.label} ({row.name})") if row.label in taken else row
            taken.add(row.label)
        found.append(row)
    return found


def together(tasks: Sequence[Callable[[], T]], impatient: Callable[[], AbstractContextManager[None]]) -> list[T]:
    """The results of tasks, each done when no other process is at it."""
    done: dict[int, T] = {}
    waiting = deque(range(len(tasks)))
    busy_in_turn = 0
    while waiting:
        number = waiting.popleft()
        try:
            with impatient():
                done[number] = tasks[number]()
            busy_in_turn = 0
        except Busy as other:
            waiting.append(number)
            busy_in_turn += 1
            if busy_in_turn == len(waiting):
                log.info("waiting for another process: %s", other)
                time.sleep(_PAUSE)
                busy_in_turn = 0
    return [done[number] for number in range(len(tasks))]
