"""Claims as YAML, and what a frame says of each: holds, does not hold, undecided, or not measured.

A claim: a metric of one row less that of another lies beyond a margin. It is judged on each data set by itself, on
pairs of the same seed and the same images.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from xai.core.errors import UserError
from xai.core.files import read_text
from xai.core.settings import build, unknown
from xai.study.columns import Column, column_of
from xai.study.pairs import Choice, Relation, Share, judge_choice, judge_relation, judge_share, of_pairs
from xai.study.statistics import LEVEL, MINIMUM_SEEDS, Difference, difference, holm, wide

Pooled = Literal["data", "source", "model"]
"""What counts as runs beside the seed, instead of being judged or shown by itself."""
HOLDS, FAILS, UNDECIDED, NOT_MEASURED = VERDICTS = ("holds", "does not hold", "undecided", "not measured")
KINDS = ("post-hoc", "trained", "refined", "control", "classifier")
"""What an explainer's row may be; in place of a row's name it stands for all rows of that kind."""

_COLUMNS = [
    *("claim", "paper", "heading", "where", "metric", "than", "above", "below", "label", "margin"),
    *("difference", "low", "high", "seeds", "low_seeds", "high_seeds"),
    *("over_images", "low_images", "high_images", "n_images", "p", "verdict", "why", "lacks"),
]

RULE = (
    f"A claim holds where the difference lies beyond its margin in every seed, of at least {MINIMUM_SEEDS}, and the "
    "95 % interval of the mean over images (differences of the same image, averaged over the seeds that have it; "
    "Student's t) does so too, and the paired t-test, after Holm's correction for the comparisons of one "
    f"heading, gives p < {LEVEL:g}; it does not hold where all of this is so on the other side; else it is undecided. "
    "Where there are no values of single images, interval and test are those over seeds."
)
"""How a verdict is reached, for a reader."""


@dataclass(frozen=True)
class Claim:
    """Each row of `above` is beyond each row of `below`, in each metric.

    Args:
        metrics: Columns of the frame.
        above: Rows, by name or kind.
        below: Rows, by name or kind; never those of `above`, unless `than` is another metric.
        paper: Where in the paper.
        text: In words; may hold {above}, {below} and {metric}.
        heading: Of the grid it is shown in, which other claims may share; empty: each comparison has a line of its own.
        than: The metric of `below`, where it is another one.
        direction: Where `above` is claimed to be; null takes what is better.
        margin: By how much at least, in the unit of the frame: 0.03 is three percentage points.
        but: Rows that a kind does not stand for.
    """

    metrics: list[str]
    above: list[str]
    below: list[str]
    paper: str
    text: str = "{above} is ahead of {below} in {metric}"
    heading: str = ""
    than: str | None = None
    direction: Literal["higher", "lower"] | None = None
    margin: float = 0.0
    but: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what is no claim."""
        if not (self.metrics and self.above and self.below):
            raise UserError(f"the claim {self.text!r} needs metrics, above and below: name at least one of each")
        try:
            self.text.format(above="", below="", metric="")
        except (LookupError, AttributeError, TypeError, ValueError):
            known = "{above}, {below} and {metric}"
            raise UserError(f"the claim {self.text!r} has something else in braces than {known}") from None


@dataclass(frozen=True)
class Claims:
    """A file of claims.

    Args:
        claims: In their order.
        about: Whose they are.
        pool: What counts as runs beside the seed: `data`, `source`, `model`.
        shares: What is claimed to hold in most pairs of a source and a target. Where something is claimed of pairs, a
            data set that is its own source is left out of all of the file.
        relations: What is claimed to go together over such pairs.
        choices: Which source is claimed to be the better choice for a target.
    """

    claims: list[Claim]
    about: str = ""
    pool: list[Pooled] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)

    def names(self) -> set[str]:
        """Rows and kinds that are compared."""
        return {name for claim in self.claims for name in (*claim.above, *claim.below)}


@dataclass(frozen=True)
class Finding:
    """One comparison of a claim on one data set.

    `where` names model, data and source, as far as they are not pooled; `labels` are those of the rows `above` and
    `below`; `sign` is 1 where `above` is claimed to be higher, else -1; `difference` is `above` less `below`; `p`, of
    its difference from the margin, is after Holm's correction; `why` says what keeps it undecided or unmeasured, and
    `lacks` names the row or metric that is not there.
    """

    claim: Claim
    text: str
    where: str
    metric: Column
    above: str
    below: str
    labels: tuple[str, str]
    sign: int = 1
    difference: Difference | None = None
    p: float = float("nan")
    verdict: str = NOT_MEASURED
    why: str = "no run has both"
    lacks: str = ""


def read_claims(path: Path) -> Claims:
    """Read a file of claims; UserError where it is missing or is none."""
    return build(Claims, read_yaml(path, "file of claims"), path.stem)


def read_yaml(path: Path, what: str, own: Sequence[str] = ()) -> dict[str, Any]:
    """What a file says; what it lacks it has, but for `own`, from the one beside it that it names as `like`.

    Raises:
        UserError: It is missing, or no YAML of keys and values.
    """
    if not path.is_file():
        there = [each.stem for each in path.parent.glob("*.yaml")]
        raise UserError(unknown(path.stem, path.stem, there, what, "there are"))
    try:
        values = yaml.safe_load(read_text(path)) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is no {what}: give keys and their values")
    like = values.pop("like", None)
    base = read_yaml(path.with_name(f"{like}.yaml"), what) if like else {}
    return {key: value for key, value in base.items() if key not in own} | values


def judge(frame: pd.DataFrame, claims: Claims, columns: Mapping[str, Column]) -> list[Finding]:
    """What becomes of each comparison of each claim, on each data set (model and source) by itself.

    Raises:
        UserError: A claim without a direction, of a metric of which neither way is better.
    """
    found = []
    if claims.shares or claims.relations or claims.choices:
        frame = frame[frame["source"].isna() | (frame["source"] != frame["data"])]
    named = {name for claim in claims.claims for name in (*claim.metrics, claim.than) if name}
    for where, part in parts(frame, claims.pool):
        labels = dict(zip(part["explainer"], part["label"], strict=True))
        wides = {name: wide(part, name) for name in named & set(part["metric"])}
        compared = [each for claim in claims.claims for each in _each(claim, part)]
        judged = [_compare(each, where, labels, wides, columns) for each in compared]
        found += _corrected(judged)
    return found


def parts(frame: pd.DataFrame, pool: Sequence[str] = ()) -> Iterator[tuple[str, pd.DataFrame]]:
    """The frame of each model, data set and source, with its name; what is pooled stays together.

    Lines without a source are part of every source of their data set.
    """
    keys = [key for key in ("model", "data", "source") if key not in pool]
    listed = frame[keys].drop_duplicates()
    if "source" in keys:
        others = [key for key in keys if key != "source"]
        with_source = listed.groupby(others, dropna=False)["source"].transform("count") > 0
        listed = listed[listed["source"].notna() | ~with_source]
    for line in listed.to_dict("records"):
        chosen = pd.Series(True, index=frame.index)
        for key, value in line.items():
            same = frame[key].isna() if pd.isna(value) else frame[key] == value
            chosen &= same | frame[key].isna() if key == "source" else same
        names = dict.fromkeys(frame.loc[chosen, "data"]) if "data" in pool else {line["data"]: None}
        data = ", ".join(names)
        source = line.get("source")
        direction = data if source is None or pd.isna(source) else f"{source} → {data}"
        yield " · ".join(filter(None, (direction, line.get("model", "")))), frame[chosen]


def judge_pairs(frame: pd.DataFrame, claims: Claims, columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """Lines of `table_of` for what is claimed over pairs of data sets, model by model."""
    if not (claims.shares or claims.relations or claims.choices):
        return []
    lines = []
    for model, part in frame.groupby("model", sort=False):
        pairs = of_pairs(part, columns)
        found = [judge_share(pairs, each) for each in claims.shares]
        found += [judge_relation(pairs, each, columns) for each in claims.relations]
        found += [judge_choice(pairs, each) for each in claims.choices]
        lines += [line | {"where": f"pairs of {pairs.index.unique('data').size} data sets · {model}"} for line in found]
    return lines


def table_of(findings: Sequence[Finding], pairs: Sequence[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Verdicts and every number behind them, one line a comparison, in the unit of the frame.

    Columns: claim, paper, heading, where, metric, than, above, below, label (of `below`), margin; `difference` and its
    95 % interval `low` to `high`; seeds and the interval over them; n_images, the mean over them and its interval; p,
    verdict, why, lacks.
    """
    lines = []
    for each in findings:
        claim, found = each.claim, each.difference
        line: dict[str, Any] = {"claim": each.text, "paper": claim.paper, "heading": claim.heading, "where": each.where}
        line |= {"metric": each.metric.name, "than": claim.than, "above": each.above, "below": each.below}
        line |= {"label": each.labels[1], "margin": claim.margin}
        if found is not None:
            line |= {"difference": found.mean, "low": found.interval[0], "high": found.interval[1]}
            line |= {"seeds": found.seeds, "low_seeds": found.over_runs[0], "high_seeds": found.over_runs[1]}
            line |= dict(zip(("over_images", "low_images", "high_images"), found.over_images, strict=True))
            line |= {"n_images": found.images, "p": each.p}
        lines.append(line | {"verdict": each.verdict, "why": each.why, "lacks": each.lacks})
    empty = dict.fromkeys(("heading", "above", "below", "label", "lacks"), "")
    return pd.DataFrame([*lines, *({**empty, **each} for each in pairs)], columns=_COLUMNS)


def _each(claim: Claim, frame: pd.DataFrame) -> Iterator[tuple[Claim, str, str, str]]:
    """Every comparison of a claim: metric, row above, row below."""
    rows = frame.drop_duplicates("explainer").set_index("explainer")["kind"]
    above = _named(claim.above, rows, claim.but)
    spared = [*claim.but, *(above if claim.than is None else [])]
    for metric, mine in product(claim.metrics, above):
        for theirs in _named(claim.below, rows, spared):
            yield claim, metric, mine, theirs


def _named(names: Sequence[str], kinds: "pd.Series[str]", spared: Sequence[str]) -> list[str]:
    """Rows by name, whether measured or not, and those of the kinds that are named."""
    found: dict[str, None] = {}
    for name in names:
        if name in KINDS and name not in kinds.index:
            found |= dict.fromkeys(str(row) for row in kinds.index[kinds == name] if row not in spared)
        else:
            found[name] = None
    return list(found)


def _compare(
    comparison: tuple[Claim, str, str, str],
    where: str,
    called: Mapping[str, str],
    wides: Mapping[str, pd.DataFrame],
    columns: Mapping[str, Column],
) -> Finding:
    claim, name, above, below = comparison
    column = column_of(name, columns)
    labels = (called.get(above, above), called.get(below, below))
    text = claim.text.format(above=labels[0], below=labels[1], metric=column.label)
    finding = Finding(claim, text, where, column, above, below, labels)
    for row, metric in ((above, name), (below, claim.than or name)):
        if row not in called:
            return replace(finding, why="there is no row", lacks=row)
        if row not in wides.get(metric, ()):
            return replace(finding, why=f"{called[row]} has no", lacks=metric)
    direction = claim.direction or column.better
    if direction is None:
        raise UserError(f"the claim {claim.text!r} has no direction, and neither is better of {name}: give direction")
    sign = 1 if direction == "higher" else -1
    mine, theirs = wides[name][above], wides[claim.than or name][below]
    found = difference(*mine.align(theirs, join="inner"), null=sign * claim.margin, quadratic=column.quadratic)
    return finding if found is None else replace(finding, sign=sign, difference=found, p=found.p)


def _corrected(findings: Sequence[Finding]) -> list[Finding]:
    """With p-values corrected for the comparisons of one heading (else of one claim), and the verdicts."""
    families: dict[object, list[int]] = {}
    for number, finding in enumerate(findings):
        families.setdefault(finding.claim.heading or id(finding.claim), []).append(number)
    decided = list(findings)
    for members in families.values():
        for number, p in zip(members, holm([findings[number].p for number in members]), strict=True):
            decided[number] = _decide(replace(findings[number], p=p))
    return decided


def _decide(finding: Finding) -> Finding:
    found = finding.difference
    if found is None:
        return finding
    if found.seeds < MINIMUM_SEEDS:
        missing = f"{found.seeds} seed{'s' * (found.seeds > 1)}, of at least {MINIMUM_SEEDS}"
        return replace(finding, verdict=UNDECIDED, why=missing)
    seeds = [finding.sign * value - finding.claim.margin for value in found.by_run]
    interval = [finding.sign * value - finding.claim.margin for value in found.interval]
    for side, verdict in ((1, HOLDS), (-1, FAILS)):
        if all(side * value > 0 for value in (*seeds, *interval)) and finding.p < LEVEL:
            return replace(finding, verdict=verdict, why="")
    if len({value > 0 for value in seeds}) > 1:
        why = "the seeds disagree"
    elif min(interval) > 0 or max(interval) < 0:
        why = "not after Holm's correction"
    else:
        why = "the interval holds the margin"
    return replace(finding, verdict=UNDECIDED, why=why)
