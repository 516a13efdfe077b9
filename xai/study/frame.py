"""The frames: everything that a study measured, one line for explainer x metric x image. Views are made of them."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from xai.core.csv_files import read_csv, write_csv
from xai.core.errors import UserError
from xai.core.overrides import UNNAMED
from xai.explainers.registry import Row, passes_of
from xai.metrics import registry as metrics
from xai.study.case import Case
from xai.study.maps import Maps
from xai.study.scores import Scores
from xai.study.statistics import WHOLE

NAMES = ("scores", "curves", "costs", "left_out")
_TEXT = (
    *("case", "explainer", "label", "kind", "metric", "curve", "model", "data", "source", "split", "home"),
    *("reason", "maps"),
)


@dataclass(frozen=True)
class Measurement:
    """All that a study measured of one row in one case: scores by metric family, and why a metric could not be had."""

    case: Case
    row: Row
    maps: Maps
    scores: Mapping[str, Scores]
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Frames:
    """What a study measured.

    Args:
        scores: One line for explainer x metric x image: case, explainer, label, kind, metric, model, data, source,
            seed, split, home (the data set of the case that the line goes with, where it is of another one), image (its
            row in the split; -1 where a value is of all images), value, chance (what knowing nothing would score there,
            NaN where nobody has said), and a column for each number that rows are labelled with.
        curves: One line for explainer x curve x point: the same columns, but curve, x (a share, 0 to 1) and the value's
            mean over images.
        costs: One line for explainer: passes and milliseconds an image, the seconds its training took, where its maps
            lie: the key of their artifact, and which stage of a path they are.
        left_out: One line for each metric that a row cannot have, or for the columns of it that it cannot: explainer,
            metric, reason.
    """

    scores: pd.DataFrame
    curves: pd.DataFrame
    costs: pd.DataFrame
    left_out: pd.DataFrame


def frames(measurements: Sequence[Measurement]) -> Frames:
    """The frames of what was measured."""
    return Frames(
        _joined(_score_lines(each) for each in measurements),
        _joined(_curve_lines(each) for each in measurements),
        _joined([pd.DataFrame([_cost_line(each) for each in measurements])]),
        _joined([pd.DataFrame([line for each in measurements for line in _reason_lines(each)])]),
    )


def join(parts: Iterable[Frames]) -> Frames:
    """The frames of several studies or seeds as one; lines that came twice are kept once."""
    listed = list(parts)
    return Frames(*(_joined([getattr(part, name) for part in listed]).drop_duplicates() for name in NAMES))


AT = " at "
"""In the name of a row of several runs, between its own name and the settings that tell it from those of other runs."""

_RUN = ["case", "explainer", "model", "data", "source", "seed", "split", "home"]


_SHOWN = frozenset({"rows", "metrics", "tables", "claims", "figures", "pictures", "gallery", "plugins", "path_steps"})
"""Settings that say what a run measures and shows; a number that two runs have does not depend on them."""
_OF_JUDGE = frozenset({"judge"})
"""Settings that the columns which ask a second classifier depend on, and no others."""


def settings_apart(asked: Sequence[Sequence[object]]) -> list[list[str]]:
    """What each of some runs was asked for and not all of them were, but for its seed, each as `key=value`."""
    listed = [list(map(str, each)) for each in asked]
    shared = set.intersection(*map(set, listed))
    return [[each for each in one if each not in shared and not each.startswith(("seed=", "name="))] for one in listed]


def told_apart(runs: Sequence[tuple[Sequence[str], Frames]]) -> list[Frames]:
    """The frames of several runs, where rows of one name may have been measured at other settings.

    Args:
        runs: The settings of each that others do not share (`settings_apart`), and its frames. Rows of which two runs
            say something else at the same seed are told apart by them, `proposed at transfer.alpha=0.6`, and so are
            those that were measured at other settings and at no seed of both, as nothing says that they are the same.
            What comes out the same in all runs stays one row, and so do the seeds of the same settings. Another judge
            is another setting of what it was asked for alone.
    """
    contradicted = _contradicted(runs)
    judged = _without_common_seed(runs, _SHOWN, but=_without_judge()) - contradicted
    unknown = _without_common_seed(runs, _SHOWN | _OF_JUDGE) - judged - contradicted
    told = []
    for settings, frames in runs:
        parts = [getattr(frames, name) for name in NAMES]
        texts = (" ".join(settings), _of_numbers(settings, _SHOWN), _of_numbers(settings, _SHOWN | _OF_JUDGE))
        for rows, text in zip((contradicted, judged, unknown), texts, strict=True):
            parts = [_named(part, rows, text) for part in parts]
        told.append(Frames(*parts))
    return told


def _contradicted(runs: Sequence[tuple[Sequence[str], Frames]]) -> set[str]:
    """Rows of which two runs say something else of the same image at the same seed."""
    scores = _joined(frames.scores for _, frames in runs)
    if not len(scores):
        return set()
    what = [name for name in (*_RUN, "metric", "image") if name in scores]
    answers = scores.drop_duplicates([*what, "value"])
    return set(answers.loc[answers.duplicated(what, keep=False), "explainer"])


def _without_judge() -> set[str]:
    """Columns that ask no second classifier; of a column that no metric here has, nobody knows."""
    families = metrics.families()
    asked = {name: metrics.entry(families[name]).needs | column.needs for name, column in metrics.columns().items()}
    return {name for name, needs in asked.items() if "judge" not in needs}


def _without_common_seed(
    runs: Sequence[tuple[Sequence[str], Frames]], without: frozenset[str], but: Collection[str] = ()
) -> set[str]:
    """Rows that were measured at two settings, `without` some of those, and at no seed at both; `but` some columns."""
    if len({_of_numbers(settings, without) for settings, _ in runs}) < 2:
        return set()
    seeds: dict[tuple[str, ...], dict[str, set[str]]] = {}
    for settings, frames in runs:
        what = [name for name in (*_RUN, "metric") if name in frames.scores]
        for line in frames.scores[what].drop_duplicates().to_dict("records"):
            if line["metric"] in but:
                continue
            seed = str(line.pop("seed"))
            measured = seeds.setdefault((str(line["explainer"]), *map(str, line.values())), {})
            measured.setdefault(_of_numbers(settings, without), set()).add(seed)
    return {
        what[0]
        for what, measured in seeds.items()
        if any(one.isdisjoint(other) for one, other in combinations(measured.values(), 2))
    }


def _of_numbers(settings: Sequence[str], without: frozenset[str]) -> str:
    """Those of some settings that numbers may depend on, in their order; `without` those that they do not depend on."""
    keys = (re.split(r"[.=]", each.lstrip("+~"), maxsplit=1)[0] for each in settings)
    return " ".join(each for each, key in zip(settings, keys, strict=True) if key not in UNNAMED | without)


def _named(frame: pd.DataFrame, rows: set[str], settings: str) -> pd.DataFrame:
    """A frame, some rows of which are called by the settings that they were measured at as well."""
    if not settings or not len(frame):
        return frame
    mine = frame["explainer"].isin(rows)
    return frame.assign(
        explainer=frame["explainer"].where(~mine, frame["explainer"] + AT + settings),
        label=frame["label"].where(~mine, frame["label"] + ", " + settings),
    )


def own_name(row: str) -> str:
    """The name of a row without what `told_apart` has added to it."""
    return row.partition(AT)[0]


def _common(measured: Measurement) -> dict[str, Any]:
    case, row = measured.case, measured.row
    return {
        "case": case.name,
        "explainer": row.name,
        "label": row.label,
        "kind": row.entry.info.kind,
        "model": case.model.name,
        "data": case.data.name,
        "source": case.source,
        "seed": case.seed,
        "split": case.split,
        "home": (case.home or case).data.name,
        **measured.maps.prepared.notes,
    }


def _score_lines(measured: Measurement) -> pd.DataFrame:
    parts = []
    for scores in measured.scores.values():
        for metric, values in scores.columns.items():
            image = scores.rows.numpy() if len(values) == len(scores.rows) else [WHOLE]
            chance = scores.chance[metric].numpy() if metric in scores.chance else float("nan")
            parts.append(pd.DataFrame({"metric": metric, "image": image, "value": values.numpy(), "chance": chance}))
    return _joined(parts).assign(**_common(measured))


def _curve_lines(measured: Measurement) -> pd.DataFrame:
    parts = []
    for scores in measured.scores.values():
        for curve, values in scores.curves.items():
            x = torch.linspace(0, 1, values.shape[1], dtype=torch.float64)
            mean = values.double().nanmean(0)
            parts.append(pd.DataFrame({"curve": curve, "x": x.numpy(), "value": mean.numpy()}))
    return _joined(parts).assign(**_common(measured))


def _cost_line(measured: Measurement) -> dict[str, Any]:
    maps = measured.maps
    return {
        **_common(measured),
        "passes": passes_of(measured.case, measured.row, maps.prepared),
        "milliseconds": maps.milliseconds,
        "maps": maps.artifact.key,
        "stage": maps.prepared.pick,
    }


def _reason_lines(measured: Measurement) -> list[dict[str, Any]]:
    return [{**_common(measured), "metric": name, "reason": why} for name, why in measured.left_out.items()]


def _joined(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


def write_frames(folder: Path, frames: Frames) -> None:
    """Write `scores.csv`, `curves.csv`, `costs.csv` and `left_out.csv`, each whole or not at all."""
    for name in NAMES:
        write_csv(folder / f"{name}.csv", getattr(frames, name))


def read_frames(folder: Path) -> Frames:
    """Read what `write_frames` wrote; UserError: a file is missing or is no such table."""
    return Frames(*(_read(Path(folder) / f"{name}.csv") for name in NAMES))


def _read(path: Path) -> pd.DataFrame:
    try:
        found = read_csv(path, dtype=dict.fromkeys(_TEXT, "str"))
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not what a study wrote ({error}): run the study again") from None
    return found
