"""`task=tune`: settings of a study that Optuna searches on validation images, for the trade-off between two scores.

Yoshikawa et al., section 6.2.2, advise it for lambda2. Each trial is a study of one row, made from the store: what its
settings leave as it was, such as a network when only lambda2 is another, is found there and not trained again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field
from rich.table import Table

from xai.app import check
from xai.core.common import Common
from xai.core.csv_files import write_csv
from xai.core.errors import UserError
from xai.core.folders import shown
from xai.core.overrides import command, overrides, quoted, typed_keys
from xai.core.progress import bar, console
from xai.core.runtime import Runtime, open_runtime, say_end, say_heading
from xai.core.settings import Count, Distinct, FieldError, Positive, build, settings
from xai.metrics import registry as metrics
from xai.report import tuned
from xai.report.figures import Source, save
from xai.report.page import Page, Part, Picture, write_page
from xai.study.frame import Frames
from xai.study.study import StudySettings
from xai.sweeps.jobs import jobs_of, typed_here, without_hydra
from xai.tasks.registry import Task
from xai.tasks.study import STUDIES

Value = str | int | float | bool


@settings
class Range:
    """Numbers that a setting may have.

    Args:
        low: The least.
        high: The most.
        step: Between two of them; null: any.
    """

    low: float
    high: float
    step: Positive | None = None

    def __post_init__(self) -> None:
        """Refuse a range without two numbers in it."""
        if self.high <= self.low:
            raise FieldError("high", f"must be above low={self.low:g}")


@settings
class TuneSettings(Common):
    """Settings of task=tune, which passes on those of the study.

    Args:
        study: Which.
        row: Whose scores count.
        beside: Rows that are measured once, for comparison.
        goals: Two columns of metrics, each better one way.
        over: By setting, the values it is chosen from, or `low`, `high` and `step` of numbers.
        trials: How many combinations are tried.
        checkpoint: Passed on.
        explainers: Passed on.
        metric: Passed on.
    """

    study: str
    row: str
    beside: tuple[str, ...]
    goals: Annotated[tuple[str, ...], Field(min_length=2, max_length=2), Distinct]
    over: dict[str, Any]
    trials: Count
    checkpoint: Any
    explainers: Any
    metric: Any


_OWN = ("task", "name", "row", "beside", "goals", "over", "trials", "logger")
"""What is no setting of the study."""


def _settle(values: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """Refuse to write into the folder of an experiment's own runs: its name stands above the task's."""
    if {"task", "experiment"} <= {*typed} and "name" not in typed:
        name = values["name"]
        raise UserError(
            f"task=tune would write into outputs/{name}, where the experiment's runs lie: add name={name}_tuned"
        )
    return values


def run(asked: TuneSettings, output: Path) -> None:
    """Try combinations; write all of them, those that no other beats, and a figure of both.

    Raises:
        UserError: Optuna is not installed, a goal that is better neither way, or a trial that the study refuses.
    """
    optuna = _optuna()
    spaces = {key: _space(key, given) for key, given in asked.over.items()}
    if not spaces:
        raise UserError("over is empty: give settings and their values, as in over={transfer.lambda2:[0.4,0.8]}")
    columns = [metrics.ranked_by(goal, "goals: ") for goal in asked.goals]
    typed = typed_here(*_OWN)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = optuna.create_study(
        directions=["maximize" if column.better == "higher" else "minimize" for column in columns],
        sampler=optuna.samplers.TPESampler(seed=asked.seed),
    )
    runtime = open_runtime(asked, output, small=True)
    say_heading(f"{asked.row} of study={asked.study}", f"{asked.trials} trials", seed=asked.seed)
    lines: list[dict[str, Any]] = []
    beside: dict[str, tuple[float, ...]] = {}
    with bar("trials", asked.trials, "trials") as advance:
        for number in range(asked.trials):
            trial = search.ask()
            chosen = {key: _suggested(trial, key, space) for key, space in spaces.items()}
            rows = [asked.row, *([] if number else asked.beside)]
            frames = measured(_study_of(asked, typed, rows, chosen), runtime)
            values = _scores(frames, asked.row, asked.goals)
            beside |= {name: _scores(frames, name, asked.goals) for name in rows[1:]}
            search.tell(trial, values)
            lines.append({"trial": number, **chosen, **dict(zip(asked.goals, values, strict=True))})
            if runtime.logger:
                runtime.logger.log_metrics(dict(zip(asked.goals, values, strict=True)), number)
            advance(number + 1)
    best = {trial.number for trial in search.best_trials}
    tried = pd.DataFrame(lines).assign(front=[line["trial"] in best for line in lines])
    front = tried[tried["front"]].drop(columns="front").drop_duplicates([*asked.over, *asked.goals])
    front = front.sort_values(asked.goals[0], ascending=columns[0].better == "lower")
    others = pd.DataFrame([[name, *values] for name, values in beside.items()], columns=["row", *asked.goals])
    for name, frame in ((tuned.TRIALS, tried), (tuned.FRONT, front), (tuned.BESIDE, others)):
        write_csv(output / name, frame)
    figure = tuned.figure_of(output)
    save(figure, output / "figures", "trade_off")
    parts = [
        Part(tuned.TITLE, pictures=[Picture.of(figure, tuned.ALT, tuned.CAPTION)]),
        Part("The front", [tuned.sheet_of(front)]),
    ]
    about = f"{asked.row} of study={asked.study}, {asked.trials} trials, seed {asked.seed}"
    page = write_page(output / "report.html", Page(f"Tuned: {asked.row}", about, parts=parts, command=command()))
    _say(front, beside, asked)
    say_end(runtime, f"front: [bold]{shown(output / tuned.FRONT)}[/]", f"report: [bold]{shown(page)}[/]")


def measured(settings: StudySettings, runtime: Runtime) -> Frames:
    """What a study measures, from the store or anew."""
    return STUDIES[settings.study].open(settings, runtime).run()


def _study_of(
    asked: TuneSettings, typed: Sequence[str], rows: Sequence[str], chosen: Mapping[str, Value]
) -> StudySettings:
    """The study with some settings chosen, on the validation split, checked as every study is."""
    shown_nowhere = ("pictures=0", "gallery=0", "tables=[]", "claims=[]", "figures=[]")
    given = [
        *typed,
        *("task=study", f"study={asked.study}", "case.split=validation", *shown_nowhere),
        f"name={quoted(asked.name)}",
        f"rows=[{','.join(rows)}]",
        f"metrics=[{','.join(asked.goals)}]",
        *(f"{key}={_text(value)}" for key, value in chosen.items()),
    ]
    (job,) = jobs_of(overrides(given))
    assert job.config is not None
    _, settings = check(without_hydra(job.config), typed_keys(job.overrides))
    assert isinstance(settings, StudySettings)
    return settings


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("task=tune needs Optuna: pip install -e '.[optuna]'") from None
    return optuna


def _space(key: str, given: Any) -> Range | list[Value]:
    """What a setting may be."""
    if isinstance(given, list) and given and all(isinstance(each, Value) for each in given):
        return given
    if isinstance(given, Mapping):
        return build(Range, given, f"over.{key}")
    raise UserError(f"over.{key}={given} is no choice: list values, or give low and high")


def _suggested(trial: Any, key: str, space: Range | list[Value]) -> Value:
    if isinstance(space, Range):
        return float(f"{trial.suggest_float(key, space.low, space.high, step=space.step):.6g}")
    found: Value = trial.suggest_categorical(key, space)
    return found


def _text(value: Value) -> str:
    if isinstance(value, str):
        return quoted(value)
    # A whole number that a range gives is one for settings of those, too.
    return f"{value:.15g}" if isinstance(value, float) else str(value).lower()


def _scores(frames: Frames, row: str, goals: Sequence[str]) -> tuple[float, ...]:
    """The averages of a row, in the units that are shown."""
    source = Source(frames.scores, columns=metrics.columns())
    found = []
    for goal in goals:
        lines = source.of(goal, [row])
        if lines.empty:
            raise UserError(f"{row} has no {goal} in this study: give goals=[...] that it has")
        found.append(float(source.averaged(goal, lines, ["explainer"]).iloc[0]))
    return tuple(found)


def _say(front: pd.DataFrame, beside: Mapping[str, Sequence[float]], asked: TuneSettings) -> None:
    """The front, a line each, and the rows beside it."""
    table = Table(*asked.over, *asked.goals, box=None, title="what no other trial beats", title_justify="left")
    for line in front[[*asked.over, *asked.goals]].itertuples(index=False):
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in line))
    for name, values in beside.items():
        table.add_row(f"[dim]{name}[/]", *[""] * (len(asked.over) - 1), *(f"[dim]{value:.4g}[/]" for value in values))
    console.print(table)


TASK = Task("task=tune", TuneSettings, run, settle=_settle)
