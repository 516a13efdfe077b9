"""Figures by name: functions of what a study measured, and the files of conf/figure that say with which settings."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any

import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from xai.core import plugins
from xai.core.composing import choices, config_file
from xai.core.errors import UserError
from xai.core.settings import Count, OneLine, build, settings, shown, unknown
from xai.metrics.registry import Column
from xai.study.claims import read_yaml
from xai.study.columns import column_of, scale

RUN = ("model", "data", "source", "seed")
_LINE = ("case", "home", "explainer", "label", "kind", "metric", "split", "image", "value", "chance", "curve", "x")
_KNOWN = frozenset((*_LINE, "maps", "stage", *RUN))


@dataclass(frozen=True)
class Source:
    """What figures are drawn from.

    Args:
        scores: One line for explainer x metric x image; the image -1 is all of them together.
        curves: One line for explainer x curve x point: `x` from 0 to 1 and the value's mean over images.
        costs: One line for explainer: passes and milliseconds an image, seconds of training.
        columns: What is known of the metrics, by name.
    """

    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    columns: Mapping[str, Column] = field(default_factory=dict)

    def column(self, metric: str) -> Column:
        """What is known of a metric; its name where nothing is."""
        return column_of(metric, self.columns)

    def label(self, row: str) -> str:
        """What a row of the scores is called."""
        return str(self.scores.loc[self.scores["explainer"] == row, "label"].iloc[0])

    def titled(self, metric: str) -> str:
        """Its label, and which way is better."""
        column = self.column(metric)
        return f"{column.label} ({column.better} is better)" if column.better else column.label

    def with_unit(self, metric: str) -> str:
        """Its label and unit, for an axis."""
        column = self.column(metric)
        return f"{column.label}, {column.unit}" if column.unit else column.label

    def of(self, metric: str, rows: Sequence[str] = (), case: str = "") -> pd.DataFrame:
        """Lines with a value of a metric, in its unit, of the rows that match one of some patterns (none: of all)."""
        if self.scores.empty:
            return self.scores
        lines = self.scores[(self.scores["metric"] == metric) & self.scores["value"].notna()]
        if rows:
            lines = lines[matching(lines["explainer"], rows)]
        if case:
            lines = lines[matching(lines["case"], [case])]
        return lines.assign(value=lines["value"] * scale(self.column(metric)))

    def averaged(self, metric: str, lines: pd.DataFrame, keys: Sequence[str]) -> "pd.Series[float]":
        """Means of lines of a metric by some keys; over images as the metric has it, perhaps the root mean square."""
        squared = self.column(metric).quadratic and "image" not in keys
        values = lines.assign(value=lines["value"] ** 2) if squared else lines
        means = values.groupby(list(keys), dropna=False, sort=False)["value"].mean()
        return means**0.5 if squared else means

    def over_runs(self, metric: str, lines: pd.DataFrame) -> "pd.Series[float]":
        """The mean of each row over its runs, as a table has it."""
        keys = ["explainer", *(name for name in RUN if name in lines)]
        return self.averaged(metric, lines, keys).groupby(level="explainer").mean()

    def by_data(self) -> dict[str, "Source"]:
        """The same for each data set alone, in their order."""
        frames = [frame for frame in (self.scores, self.curves, self.costs) if "data" in frame]
        names = dict.fromkeys(name for frame in frames for name in frame["data"].unique())
        return {str(name): self._only("data", name) for name in names}

    def reported(self) -> "Source":
        """Lines of the test split alone, where there are any."""
        splits = {
            name for frame in (self.scores, self.curves, self.costs) if "split" in frame for name in frame["split"]
        }
        return self._only("split", "test") if "test" in splits else self

    def _only(self, column: str, value: object) -> "Source":
        def kept(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[frame[column] == value] if column in frame else frame

        return replace(self, scores=kept(self.scores), curves=kept(self.curves), costs=kept(self.costs))


def matching(names: "pd.Series[str]", patterns: Sequence[str]) -> "pd.Series[bool]":
    """Which names match one of some patterns, as file names do: * for anything, [0-9] for a digit."""
    wanted = [name for name in names.unique() if any(fnmatchcase(str(name), pattern) for pattern in patterns)]
    return names.isin(wanted)


def run_keys(frame: pd.DataFrame, *without: str) -> list[str]:
    """Columns that tell one run from another: model, data, source, seed, and every parameter but those named."""
    params = [str(name) for name in frame.columns if name not in _KNOWN and name not in without]
    return [*(name for name in RUN if name in frame), *params]


Draw = Callable[[Source, Any], Figure]


@dataclass(frozen=True)
class Info:
    """A figure.

    Attributes:
        name: Of the figure and its file.
        draw: Makes it; UserError, in one line, where what it needs was not measured.
        params: Its settings.
        needs: Of `scores`, `curves` and `costs` those that must hold something.
        alt: What is to be seen.
        caption: What to look at.
        width: CSS pixels below which a page scrolls it rather than shrink it.
        joint: Whether one figure shows all data sets.
        title: Above it.
    """

    name: str
    draw: Draw
    params: Any
    needs: tuple[str, ...]
    alt: str
    caption: str
    width: int = 560
    joint: bool = False
    title: str = ""


@settings
class Named:
    """What whoever lists a figure may call it; see `Info`."""

    name: Annotated[str, Field(pattern=r"^[^./\\][^/\\]*$", max_length=200), OneLine]
    alt: str
    caption: str
    width: Count
    joint: bool
    title: Annotated[str, OneLine]


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn, under a name of its own; `data` is the data set, where each has one."""

    name: str
    figure: Figure
    info: Info
    data: str = ""

    @property
    def title(self) -> str:
        """What stands above it."""
        title = self.info.title or self.info.name.replace("_", " ").capitalize()
        return f"{title} · {self.data}" if self.data else title


_REGISTERED: dict[str, Info] = {}


def figure(name: str, **about: Any) -> Callable[[Draw], Draw]:
    """Register a function as the figure of that name; the arguments are those of `Info`.

    Raises:
        UserError: The name is taken.
    """

    def register(draw: Draw) -> Draw:
        if name in _REGISTERED:
            both = f"{_REGISTERED[name].draw.__module__} and {draw.__module__}"
            raise UserError(f"the name {name} is taken: {both} both register a figure of that name, choose another")
        _REGISTERED[name] = Info(name, draw, **about)
        plugins.registered()
        return draw

    return register


def names() -> list[str]:
    """All figures: the functions, and the files of conf/figure."""
    return sorted({*_REGISTERED, *choices("figure")})


def open_figure(wanted: str | Mapping[str, Any]) -> Info:
    """The figure that a study lists: a name, or `figure:` with settings and perhaps name, alt and caption of its own.

    Raises:
        UserError: An unknown figure or setting.
    """
    given = {"figure": wanted} if isinstance(wanted, str) else dict(wanted)
    base = str(given.pop("figure", ""))
    if base not in names():
        raise UserError(unknown(f"figures: {base!r}", base, names(), "figure", "use one of"))
    if base in _REGISTERED:
        info = _REGISTERED[base]
    else:
        info = replace(open_figure(read_yaml(config_file("figure", base), "figure")), name=base)
    where = f"figures.{shown(given.get('name', base))}"
    own = {key: value for key, value in given.items() if key not in Named.__annotations__}
    params = build(type(info.params), asdict(info.params) | own, where)
    said = {key: given.get(key, getattr(info, key)) for key in Named.__annotations__}
    return replace(info, params=params, **asdict(build(Named, said, where)))


def draw(wanted: str | Mapping[str, Any], source: Source) -> Figure:
    """One figure; UserError where what it needs was not measured."""
    return _draw(open_figure(wanted), source.reported())


def draw_all(wanted: Iterable[str | Mapping[str, Any]], source: Source) -> tuple[list[Drawn], list[str]]:
    """Every one of some figures that the frames hold, one for each data set unless it shows all.

    Returns:
        The figures, with the data set in the name where there are several, and a number where another is called so; and
        for each that cannot be drawn a line that says why.
    """
    drawn: list[Drawn] = []
    missing = []
    source = source.reported()
    parts = source.by_data()
    for info in [open_figure(each) for each in wanted]:
        for data, part in ({"": source} if info.joint or len(parts) < 2 else parts).items():
            name = f"{info.name}-{data}" if data else info.name
            # As of two figures that differ in their metric: each has a file.
            numbered = (f"{name}-{number}" for number in range(2, len(drawn) + 3))
            name = next(each for each in (name, *numbered) if each not in {other.name for other in drawn})
            try:
                drawn.append(Drawn(name, _draw(info, part), info, data))
            except UserError as error:
                missing.append(f"{name}: {error}")
    return drawn, missing


def _draw(info: Info, source: Source) -> Figure:
    empty = [name for name in info.needs if getattr(source, name).empty]
    if empty:
        raise UserError(f"no {' and no '.join(empty)} were measured to draw it from")
    return info.draw(source, info.params)
