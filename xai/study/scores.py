"""Scores: what a metric says of maps, image by image, made once and kept in the store apart from the maps."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from xai.core import plugins
from xai.explainers.registry import Row, lineage
from xai.games import PatchGame
from xai.metrics import registry
from xai.metrics.registry import Measured, Metric, given
from xai.metrics.variations import Variation
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
    available = _available(case, row, maps, chosen, reference_row)
    # What only classifies is not of pixels either.
    of_patches = maps.attributions is None or tuple(maps.attributions.shape[1:]) == tuple(case.network().grid)
    return registry.missing(chosen.metric, available, "patch" if of_patches else "pixel")


def columns_missing(case: Case, row: Row, maps: Maps, chosen: Chosen, reference_row: Row | None) -> dict[str, str]:
    """Why columns of a metric that can be had cannot, by their names; those that nobody has asked for are not told."""
    available = _available(case, row, maps, chosen, reference_row)
    columns = chosen.metric.columns_of(chosen.params)
    asked = [column for column in columns if chosen.whole or "second" not in column.needs]
    return {column.name: why for column in asked if (why := registry.missing(column, available))}


def _available(case: Case, row: Row, maps: Maps, chosen: Chosen, reference_row: Row | None) -> set[str]:
    """What a metric may need and has, of the case and the row."""
    available = _at_hand(case, reference_row)
    if maps.attributions is not None:
        available |= {"maps", "second"}
        changes_network = any(each.changes_network for each in chosen.again)
        if not changes_network or not any(each.entry.opaque for each in lineage(row, case.row)):
            available.add("again")
    if maps.logits is not None:
        available.add("logits")
    return available


def wants_second(case: Case, chosen: Sequence[Chosen], reference_row: Row | None, what: str = "second") -> bool:
    """Whether a metric of these looks at maps of the second class, and has all else that it needs of the case."""
    of_rows = {"maps", "second", "again", "logits"}
    at_hand = _at_hand(case, reference_row) | of_rows
    return any(what in each.needs and each.metric.needs <= at_hand for each in chosen)


def _at_hand(case: Case, reference_row: Row | None) -> set[str]:
    """What a metric may need and need not look for in a row's maps."""
    facts_of_case = {name for name, reason in facts(case).items() if reason is None}
    reference = {"reference", "reference_second"} if reference_row is not None else set()
    return {"network", "game", *facts_of_case, *reference}


def score(
    case: Case, row: Row, maps: Maps, chosen: Chosen, reference_row: Row | None, beside: Case | None = None
) -> Scores:
    """The scores of a row by a metric, from the store or computed; the maps it needs besides are made first.

    `beside` has the second classes, where any metric asks for references of these: they come from the same passes.
    """
    needs = chosen.needs
    found = {"maps": maps}
    if "second" in needs:
        found["second"] = explain(case.second, row)
    if "reference" in needs and reference_row is not None:
        found["reference"] = explain(case, reference_row, beside)
        if "second" in needs:
            found["reference_second"] = explain(case.second, reference_row)
    again = [explain(case.varied(each), row) for each in chosen.again]
    spec = {
        "metric": chosen.flat,
        "maps": _identity(found, again),
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
        block = _measured(case, number, blocks[number], found, again)
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


def _chance(chosen: Chosen, block: Measured, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Chance levels of the columns that have them, one beside each value."""
    found = {}
    for column in chosen.metric.columns_of(chosen.params):
        level = column.chance_of(block) if column.name in values else None
        if level is not None:
            # Where one value is of all images together, so is its level.
            found[_CHANCE + column.name] = level.cpu() if len(level) == len(values[column.name]) else level.cpu()[:1]
    return found


def _identity(maps: Mapping[str, Maps], again: Sequence[Maps]) -> dict[str, Any]:
    """Of the maps, in the key of the scores."""
    # Where the others are there, references of the second class follow from them.
    named = {name: each for name, each in maps.items() if name != "reference_second"}
    named |= {f"again {number}": each for number, each in enumerate(again)}
    return {
        name: {"key": each.artifact.key, "pick": each.prepared.pick, "pool": each.prepared.pool}
        for name, each in named.items()
    }


def _measured(case: Case, number: int, positions: Tensor, maps: Mapping[str, Maps], again: Sequence[Maps]) -> Measured:
    """What a metric may ask for of one block, each part when it is asked for."""
    device, source = case.runtime.trainer.device, cast(Any, case.data.source)

    def of(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[positions]

    def attributions(name: str) -> Tensor | None:
        return of(maps[name].attributions) if name in maps else None

    def cells() -> Tensor | None:
        return None if facts(case)["cells"] is not None else source.cells(case.split, case.rows[positions], 0)

    block = Measured(
        lambda: PatchGame(case.network(), block.images, block.targets.to(device)),
        partial(case.answers, number),
        partial(block_generator, case.seed, number),
        rows=lambda: case.rows[positions],
        images=lambda: case.images(number).pixels.to(device),
        regions=lambda: case.images(number).regions,
        cells=cells,
        labels=lambda: case.labels[positions] if case.is_labelled else None,
        targets=lambda: case.targets[positions],
        second_targets=lambda: case.second.targets[positions],
        logits=lambda: of(maps["maps"].logits),
        classifier_logits=lambda: case.compared_logits[positions],
        network=case.network,
        judge=lambda: None if case.judge is None else case.the_judge,
        again=lambda: [given(of(each.attributions)) for each in again],
        mean=lambda: case.model.mean,
        **{name: partial(attributions, name) for name in ("maps", "second", "reference", "reference_second")},
    )
    return block
