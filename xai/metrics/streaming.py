"""torchmetrics made from the registry, for Lightning loops and several devices."""

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric
from torchmetrics.utilities.data import dim_zero_cat

from xai.core.errors import UserError
from xai.core.settings import unknown
from xai.games import PatchGame
from xai.metrics import registry
from xai.metrics.registry import Measured, TargetGame

_TENSORS = (
    *("images", "labels", "targets", "second_targets", "maps", "second", "reference", "reference_second", "logits"),
    *("classifier_logits", "regions", "cells"),
)
_KNOWN = (*_TENSORS, "rows", "network", "judge", "again", "mean", "game", "generator")


def measured(**what: Any) -> Measured:
    """What a metric may ask about a batch, from tensors at hand.

    Args:
        what: By the names of `Measured`. `game` is one with targets; without it, it is made of network, images and
            targets. A `generator` moves on by one draw; without it, draws are those of seed 0.

    Raises:
        UserError: A name that is not one of `Measured`, or tensors of different numbers of images.
    """
    for name in what:
        if name not in _KNOWN:
            raise UserError(unknown(name, name, _KNOWN, "part of what is measured", "known are"))
    sizes = {len(what[name]) for name in _TENSORS if what.get(name) is not None}
    if len(sizes) != 1:
        raise UserError(f"a batch of {sorted(sizes)} images: all that is given has to be of the same images")
    generator = what.get("generator") or torch.Generator().manual_seed(0)
    # The same draws whenever they are asked for, and others in the next batch.
    state = generator.get_state()
    torch.rand(1, generator=generator, device=generator.device)

    def part(name: str) -> Any:
        if name in ("images", "targets", "mean") and name not in what:
            raise UserError(f"{name} are asked for: give {name}= too")
        return what.get(name)

    def game() -> TargetGame:
        if (found := what.get("game")) is not None:
            return cast(TargetGame, found)
        if block.network is None:
            raise UserError("a game is asked for: give game=, or network=, images= and targets=")
        return PatchGame(block.network, block.images, block.targets)

    block = Measured(
        game,
        lambda coalitions: game().value(coalitions),
        lambda: torch.Generator(generator.device).set_state(state),
        **{name: partial(part, name) for name in Measured.__annotations__},
    )
    block.rows = what.get("rows", torch.arange(*sizes))
    return block


class _Registered(TorchMetric):
    """A torchmetric over an entry of the registry: one of its columns, or all of them as a dictionary."""

    is_differentiable: bool = False
    full_state_update: bool = False

    def __init__(self, metric: str, column: str | None, params: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # The name, and not the entry: it goes to other processes.
        self.metric, self.params, self.single = metric, params, column is not None
        self.columns = [each for each in registry.entry(metric).columns_of(params) if column in (None, each.name)]
        if self.single:
            # torchmetrics keeps it from being assigned, because it is usually that of a class.
            self.__dict__["higher_is_better"] = {"higher": True, "lower": False}.get(self.columns[0].better or "")

    def update(self, maps: Tensor | None = None, **what: Any) -> None:
        """Count a batch.

        Args:
            maps: [B, h, w], where the metric is one of maps.
            what: All else that it needs, by the names of `Measured`; see `measured`.

        Raises:
            UserError: Something it needs is not given, is not finite, or does not fit the rest.
        """
        block = measured(maps=maps, **what)
        if len(block.rows):
            self._count(block, registry.compute(registry.entry(self.metric), block, self.params))

    def _count(self, block: Measured, values: dict[str, Tensor]) -> None:
        raise NotImplementedError

    def _answer(self, averages: Iterable[Tensor]) -> Any:
        found = {column.name: value for column, value in zip(self.columns, averages, strict=True)}
        return found[self.columns[0].name] if self.single else found


class Accumulated(_Registered):
    """Averages over images of the values of a metric, which add up over batches and processes; NaN is left out.

    Args:
        metric: Its name in the registry.
        column: One of its columns; None for all of them.
        params: Its settings.
        kwargs: Passed on to torchmetrics.Metric.
    """

    total: Tensor
    images: Tensor

    def __init__(self, metric: str, column: str | None, params: Any, **kwargs: Any) -> None:
        super().__init__(metric, column, params, **kwargs)
        self.curve_names = registry.entry(metric).curves_of(params)
        self.add_state("total", torch.zeros(len(self.columns), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros(len(self.columns), dtype=torch.int64), dist_reduce_fx="sum")
        for name in self.curve_names:
            self.add_state(name, [], dist_reduce_fx="cat")

    def _count(self, block: Measured, values: dict[str, Tensor]) -> None:
        for place, column in enumerate(self.columns):
            if column.name in values:
                defined = values[column.name][~values[column.name].isnan()]
                self.total[place] += (defined.square() if column.quadratic else defined).sum()
                self.images[place] += len(defined)
        for name in self.curve_names:
            if name in values:
                defined = values[name][~values[name].isnan().any(1)]
                summed = torch.cat([defined.sum(0), defined.new_tensor([len(defined)])])
                getattr(self, name).append(summed[None].to(self.total.device))

    def compute(self) -> Any:
        """The average over the images counted so far, float64; of several columns a dictionary. NaN where none is."""
        means = zip(self.columns, self.total / self.images, strict=True)
        return self._answer(mean.sqrt() if column.quadratic else mean for column, mean in means)

    def curves(self) -> dict[str, Tensor]:
        """The mean curves [K] by name of the images counted so far, by the process that is asked."""
        sums = {name: dim_zero_cat(part).sum(0) for name in self.curve_names if len(part := getattr(self, name))}
        return {name: summed[:-1] / summed[-1] for name, summed in sums.items()}


class AccumulatedSplit(_Registered):
    """The same of a metric that has to see all images at once: what it is given is kept until `compute`."""

    def __init__(self, metric: str, column: str | None, params: Any, **kwargs: Any) -> None:
        super().__init__(metric, column, params, **kwargs)
        self.kept = sorted(registry.entry(metric).needs)
        for name in self.kept:
            self.add_state(f"all_{name}", [], dist_reduce_fx="cat")

    def _count(self, block: Measured, values: dict[str, Tensor]) -> None:
        for name in self.kept:
            getattr(self, f"all_{name}").append(getattr(block, name).detach())

    def compute(self) -> Any:
        """The value of all images kept so far, float64; of several columns a dictionary. NaN where there are none."""
        parts = {name: getattr(self, f"all_{name}") for name in self.kept}
        if any(isinstance(part, list) and not part for part in parts.values()):
            return self._answer(torch.tensor(torch.nan, dtype=torch.float64) for _ in self.columns)
        whole = measured(**{name: dim_zero_cat(part) for name, part in parts.items()})
        values = registry.compute(registry.entry(self.metric), whole, self.params)
        return self._answer(column.average(values[column.name]) for column in self.columns)


def torchmetric(name: str, **params: Any) -> Accumulated | AccumulatedSplit:
    """A torchmetric of a column (`rma`, `srg`), or of all columns of a metric that share its passes (`removal`).

    Args:
        name: Of a column or of a metric; where both have it, the column is meant.
        params: Settings of the metric, such as `masks=16` of `removal`.

    Raises:
        UserError: The name or a setting is unknown, or a setting cannot be used.
    """
    entry = registry.entry(name) if name in registry.names() else registry.metric_of(name, params)
    settings = entry.settings(params)
    column = name if any(name == each.name for each in entry.columns_of(settings)) else None
    return (AccumulatedSplit if entry.whole else Accumulated)(entry.name, column, settings)
