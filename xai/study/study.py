"""A study: its settings, and rows x cases x metrics, measured together with every process that measures the same."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field
from rich.markup import escape

from xai.core.common import Common
from xai.core.errors import Busy, UserError
from xai.core.progress import console
from xai.core.settings import Distinct, Whole, settings, unknown
from xai.explainers.registry import Row, refusal
from xai.explainers.rows import load_row
from xai.metrics import registry
from xai.study.case import Case, CaseParams
from xai.study.frame import Frames, Measurement, frames
from xai.study.maps import explain
from xai.study.scores import Chosen, columns_missing, missing, score, wants_second

log = logging.getLogger(__name__)

_PAUSE = 0.5
_WORTH_A_LINE = 1.0

T = TypeVar("T")


@settings
class StudySettings(Common):
    """What every study has.

    Args:
        study: Its name.
        data: The data set: `name` and its settings.
        rows: Explainers, in order: files of conf/explainer.
        explainers: By row, settings that replace those of its file.
        metrics: Metrics, by their names or those of their columns.
        metric: By metric, its settings.
        case: Which images, and which class of each.
        tables: Files of conf/table.
        claims: Files of conf/claim.
        figures: Registered figures.
        pictures: Images on the sheets of pictures.
        gallery: Images that the site can show.
    """

    title: ClassVar[str]
    """Of its page."""

    study: str
    data: Any
    rows: Annotated[tuple[str, ...], Distinct]
    explainers: dict[str, dict[str, Any]]
    metrics: Annotated[tuple[str, ...], Field(min_length=1), Distinct]
    metric: dict[str, dict[str, Any]]
    case: CaseParams
    tables: Annotated[tuple[str, ...], Distinct]
    claims: Annotated[tuple[str, ...], Distinct]
    figures: tuple[str | dict[str, Any], ...]
    pictures: Whole
    gallery: Whole


def open_rows(names: Sequence[str], explainers: Mapping[str, Any]) -> list[Row]:
    """The rows of a study, each with the settings of its file and those of `explainers.<row>`.

    Raises:
        UserError: No row, an unknown one, or a wrong setting of one.
    """
    if not names:
        raise UserError("rows is empty: name at least one explainer")
    return [load_row(name, explainers, asked="rows") for name in names]


def open_metrics(names: Sequence[str], given: Mapping[str, Any], above: str = "") -> list[Chosen]:
    """Metrics with the settings of `metric.<name>`.

    By its own name a metric gives all of its columns; by the name of a column it gives those that need no maps of a
    second class, unless that one does.

    Args:
        names: Of metrics or columns.
        given: By metric, its settings.
        above: What the user typed before `metrics` and `metric`.

    Raises:
        UserError: An unknown metric, or a wrong setting of one.
    """
    known, families, columns = registry.names(), registry.families(), registry.columns()
    for name, values in given.items():
        if name not in known:
            raise UserError(unknown(f"{above}metric.{name}", str(name), known, "metric", "choose from"))
        registry.entry(name).settings(values, above)
    wanted: dict[str, bool] = {}
    for name in names:
        if name not in known and name not in families:
            every = {*known, *families}
            raise UserError(unknown(f"{above}metrics={name}", str(name), every, "metric", "choose from"))
        whole = name in known or "second" in columns[name].needs
        metric = name if name in known else families[name]
        wanted[metric] = wanted.get(metric, False) or whole
    entries = {name: registry.entry(name) for name in wanted}
    return [Chosen(each, each.settings(given.get(name)), wanted[name]) for name, each in entries.items()]


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
