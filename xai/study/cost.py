"""What will be asked of classifiers, in forward passes, and about how long that takes: before any of them is asked."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from rich.markup import escape
from torch import Tensor

from xai.core.progress import console
from xai.explainers.registry import Row
from xai.explainers.rows import cost_of
from xai.games import asked_at_once
from xai.study.case import Case
from xai.study.columns import three_digits
from xai.study.study import Study

_WORTH_SAYING = 10
"""Seconds that nobody has to be told of."""


class Asked(NamedTuple):
    """How often the images of one case are asked about: by all of its rows, or by one metric for each row."""

    name: str
    an_image: float
    times: int

    @property
    def total(self) -> float:
        """Passes in all."""
        return self.an_image * self.times


def asked_of(study: Study, players: int) -> list[Asked]:
    """Passes of explaining, and of each metric, where the store has nothing yet; in passes of a whole image at most."""
    found, rows = [], study.measured_rows
    maps = [row for row in rows if row.entry.info.kind != "classifier"]
    for case, metrics in study.cases:
        images = len(case.rows)
        again = {variation for each in metrics for variation in each.again}
        times = (2 if any("second" in each.needs for each in metrics) else 1) + len(again)
        found.append(Asked("explaining", times * sum(_of_map(row, case, players) for row in rows), images))
        for each in metrics:
            if each.metric.passes is not None:
                found.append(Asked(each.metric.name, each.metric.passes(each.params, players), images * len(maps)))
    return found


def _of_map(row: Row, case: Case, players: int) -> float:
    """Passes of a map; nothing where only a training could tell."""
    passes = row.entry.info.passes
    return passes(row.params.for_split(case.split), players) if passes else cost_of(case, row)


def cost_line(asked: Sequence[Asked]) -> str:
    """One line of them: what all takes together, and what for."""
    parts = [f"{each.name} {_rounded(each.total)}" for each in asked if each.total]
    total = _rounded(sum(each.total for each in asked))
    return f"to ask: {total} forward passes ({', '.join(parts)}), less what the store has"


def _rounded(passes: float) -> str:
    """A number of passes in about three digits."""
    for size, word in ((1e9, " billion"), (1e6, " million")):
        if passes >= size:
            return f"{three_digits(passes / size)}{word}"
    return f"{passes:,.0f}"


def say_cost(asked: Sequence[Asked], classify: Callable[[Tensor], Tensor], images: Tensor, advice: str = "") -> None:
    """One line of how many passes are to come and about how long they take, where they take long.

    Args:
        asked: What will be asked.
        classify: Images [B, 3, H, W] to logits; asked a few times, to see how fast it is.
        images: [1, 3, H, W] of the size and on the device that it takes.
        advice: What takes fewer.
    """
    total = sum(each.total for each in asked)
    seconds = total * seconds_a_pass(classify, images) if total else 0.0
    if seconds >= _WORTH_SAYING:
        took = f"{round(seconds, -1):.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"
        line = f"{cost_line(asked)}: at most about {took} on this machine{'; ' * bool(advice)}{advice}"
        console.print(escape(line), highlight=False, soft_wrap=True)


@torch.inference_mode()
def seconds_a_pass(classify: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """What a forward pass of an image takes, in seconds, among as many as are asked about at once."""
    times = []
    # The first pass of each size has more to do than those after it.
    for count in (1, asked_at_once(images), asked_at_once(images)):
        started = time.perf_counter()
        classify(images.expand(count, -1, -1, -1)).sum().item()
        times.append((time.perf_counter() - started) / count)
    return min(times)
