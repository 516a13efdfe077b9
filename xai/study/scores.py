"""Scores: what a metric says of maps, image by image, made once and kept in the store apart from the maps."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from xai.core import plugins
from xai.explainers.registry import Row
from xai.games import PatchGame
from xai.metrics import registry
from xai.metrics.registry import Metric
from xai.metrics.variations import Variation
from xai.models.maskable import MaskableClassifier
from xai.study.blocks import block_generator, fill_blocks, read_blocks
from xai.study.case import Case, facts
from xai.study.maps import Maps, explain

_REVISION = 2
_CHANCE = "chance/"


@dataclass(frozen=True)
class Chosen:
    """A metric with its settings; `whole` where all of its columns are wanted, also those of a second class's maps."""

    metric: Metric
    params: Any
    whole: bool = True

    @property
    def needs(self) -> frozenset[str]:
        """What it needs, with what its columns need where all of them are wanted."""
        columns = self.metric.columns_of(self.params) if self.whole else ()
        return self.metric.needs.union(*(column.needs for column in columns))

    @property
    def again(self) -> Sequence[Variation]:
        """In which variations of the case it wants the maps as well."""
        return () if self.metric.again is None else self.metric.again(self.params)

    @property
    def flat(self) -> dict[str, Any]:
        """What determines its numbers."""
        return {"name": self.metric.name, "needs": sorted(self.needs), **asdict(self.params)}


@dataclass(frozen=True)
class Scores:
    """What a metric says of N images.

    Args:
        rows: Row numbers [N] in the split.
        columns: Values [N] float64 by column, NaN where undefined; [1] where one value is of all images.
        curves: Values [N, K] by curve.
        chance: What knowing nothing scores, by column, shaped like the values; of columns that have such a level.
    """

    rows: Tensor
    columns: dict[str, Tensor]
    curves: dict[str, Tensor]
    chance: dict[str, Tensor]


def missing(case: Case, row: Row, maps: Maps, chosen: Chosen, reference_row: Row | None) -> str | None:
    """Why a metric cannot be had of a row, in a line; None where it can. The reference row's maps are the truth."""
    available = _at_hand(case, reference_row)
    if maps.attributions is not None:
        available |= {"maps", "second"}
        if not row.entry.opaque or not any(each.changes_network for each in chosen.again):
            available.add("again")
    if maps.logits is not None:
        available.add("logits")
    return registry.missing(chosen.metric, available, "patch" if is_of_patches(case, maps) else "pixel")


def wants_second(case: Case, chosen: Sequence[Chosen], reference_row: Row | None) -> bool:
    """Whether a metric of these looks at maps of the second class, and has all else that it needs of the case."""
    of_rows = {"maps", "second", "again", "logits"}
    at_hand = _at_hand(case, reference_row) | of_rows
    return any("second" in each.needs and each.metric.needs <= at_hand for each in chosen)


def _at_hand(case: Case, reference_row: Row | None) -> set[str]:
    """What a metric may need and need not look for in a row's maps."""
    facts_of_case = {name for name, reason in facts(case).items() if reason is None}
    reference = {"reference", "reference_second"} if reference_row is not None else set()
    return {"network", "game", *facts_of_case, *reference}


def is_of_patches(case: Case, maps: Maps) -> bool:
    """Whether maps are on the patch grid of the classifier; what only classifies is not of pixels either."""
    return maps.attributions is None or tuple(maps.attributions.shape[1:]) == tuple(case.network().grid)


def score(case: Case, row: Row, maps: Maps, chosen: Chosen, reference_row: Row | None) -> Scores:
    """The scores of a row by a metric, from the store or computed; the maps it needs besides are made first."""
    needs = chosen.needs
    second = explain(case.second, row) if "second" in needs else None
    reference = reference_second = None
    if "reference" in needs and reference_row is not None:
        reference = explain(case, reference_row, case.second if "second" in needs else None)
        if "second" in needs:
            reference_second = explain(case.second, reference_row)
    again = [explain(case.varied(each), row) for each in chosen.again]
    given = _Given(case, chosen, maps, second, reference, reference_second, again)
    spec = {
        "metric": chosen.flat,
        "maps": given.identity,
        "compared": case.compared.identity if case.compared is not None and "logits" in needs else None,
        "case": case.spec,
        "revision": _REVISION,
        **({"metric_revision": chosen.metric.revision} if chosen.metric.revision else {}),
        **plugins.code_of(chosen.metric.compute.__module__),
    }
    if "judge" in needs:
        assert case.judge is not None
        spec["judge"] = case.judge.identity
    blocks = [torch.arange(len(case.rows))] if chosen.metric.whole else case.blocks
    rows = [case.rows[block] for block in blocks]
    title = f"{chosen.metric.name} of {row.label}"

    def compute(number: int) -> dict[str, Tensor]:
        block = _Measured(given, number, blocks[number])
        with case.runtime.trainer.autocast():
            values = registry.compute(chosen.metric, block, chosen.params)
        return values | _chance(chosen, block, values)

    artifact = fill_blocks(case.runtime, "scores", spec, rows, compute, title, whole={"rows": case.rows})
    tensors = read_blocks(artifact)
    curves = set(chosen.metric.curves_of(chosen.params))
    chance = {name.removeprefix(_CHANCE): value for name, value in tensors.items() if name.startswith(_CHANCE)}
    left = {"rows", *curves, *(_CHANCE + name for name in chance)}
    columns = {name: value for name, value in tensors.items() if name not in left}
    return Scores(tensors["rows"], columns, {name: tensors[name] for name in sorted(curves & tensors.keys())}, chance)


def _chance(chosen: Chosen, block: registry.Measured, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Chance levels of the columns that have them, one beside each value."""
    found = {}
    for column in chosen.metric.columns_of(chosen.params):
        level = column.chance_of(block) if column.name in values else None
        if level is not None:
            # Where one value is of all images together, so is its level.
            found[_CHANCE + column.name] = level.cpu() if len(level) == len(values[column.name]) else level.cpu()[:1]
    return found


@dataclass(frozen=True)
class _Given:
    """All maps that a metric looks at."""

    case: Case
    chosen: Chosen
    maps: Maps
    second: Maps | None
    reference: Maps | None
    reference_second: Maps | None
    again: Sequence[Maps] = ()

    @property
    def identity(self) -> Mapping[str, Any]:
        """Of the maps, in the key of the scores."""
        named: dict[str, Maps | None] = {"maps": self.maps, "second": self.second, "reference": self.reference}
        named |= {f"again {number}": maps for number, maps in enumerate(self.again)}
        return {
            name: {"key": maps.artifact.key, "pick": maps.prepared.pick, "pool": maps.prepared.pool}
            for name, maps in named.items()
            if maps is not None
        }


class _Measured:
    """What a metric may ask for of one block, each part when it is asked for."""

    def __init__(self, given: _Given, number: int, positions: Tensor) -> None:
        self._given, self._number, self._positions = given, number, positions
        self._device = given.case.runtime.trainer.device

    @property
    def rows(self) -> Tensor:
        return self._given.case.rows[self._positions]

    @cached_property
    def images(self) -> Tensor:
        return self._given.case.images(self._number).pixels.to(self._device)

    @property
    def regions(self) -> Tensor | None:
        return self._given.case.images(self._number).regions

    @property
    def cells(self) -> Tensor | None:
        case = self._given.case
        source: Any = case.data.source
        if facts(case)["cells"] is not None:
            return None
        cells: Tensor = source.cells(case.split, case.rows[self._positions], 0)
        return cells

    @property
    def labels(self) -> Tensor | None:
        case = self._given.case
        return case.labels[self._positions] if case.is_labelled else None

    @property
    def targets(self) -> Tensor:
        return self._given.case.targets[self._positions]

    @property
    def second_targets(self) -> Tensor:
        return self._given.case.second.targets[self._positions]

    @property
    def maps(self) -> Tensor | None:
        return self._of(self._given.maps)

    @property
    def second(self) -> Tensor | None:
        return self._of(self._given.second)

    @property
    def reference(self) -> Tensor | None:
        return self._of(self._given.reference)

    @property
    def reference_second(self) -> Tensor | None:
        return self._of(self._given.reference_second)

    @property
    def logits(self) -> Tensor | None:
        logits = self._given.maps.logits
        return None if logits is None else logits[self._positions]

    @property
    def classifier_logits(self) -> Tensor:
        return self._given.case.compared_logits[self._positions]

    @property
    def network(self) -> MaskableClassifier:
        return self._given.case.network()

    @property
    def judge(self) -> MaskableClassifier | None:
        case = self._given.case
        return None if case.judge is None else case.the_judge

    @property
    def again(self) -> Sequence[Tensor] | None:
        found = [self._of(maps) for maps in self._given.again]
        return [maps for maps in found if maps is not None]

    @property
    def mean(self) -> Sequence[float]:
        return self._given.case.model.mean

    @property
    def generator(self) -> torch.Generator:
        return block_generator(self._given.case.seed, self._number)

    def game(self) -> PatchGame:
        return PatchGame(self.network, self.images, self.targets.to(self._device))

    def asked(self, coalitions: Tensor) -> Tensor:
        return self._given.case.answers(self._number, coalitions)

    def _of(self, maps: Maps | None) -> Tensor | None:
        return None if maps is None or maps.attributions is None else maps.attributions[self._positions]
