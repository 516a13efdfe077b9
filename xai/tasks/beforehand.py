"""How long something will take, said before it is begun."""

import time
from collections.abc import Callable, Sequence

import torch
from rich.markup import escape
from torch import Tensor

from xai.core.progress import console
from xai.games import asked_at_once
from xai.study.cost import Asked, cost_line

_WORTH_SAYING = 10
"""Seconds that nobody has to be told of."""


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
