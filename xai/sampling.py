"""Drawing patches: any alike, or with their importance as weights, as R-MIF, R-LIF and informed training masks do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from xai.rounding import is_constant

SMALLEST_WEIGHT = 1e-6
"""Weights end here: min-max scores hold exact zeros, and what has no weight at all has no order among its like."""


_APART = 2_654_435_761
"""Odd and near 2^32 / golden ratio: on the CPU a seed counts modulo 2^32, and there ranks lie far apart."""


def importance_weights(phi: Tensor) -> Tensor:
    """Attributions as sampling weights, min-max normalised (Naouar et al. 2025, Algorithms 2 and 3, lines 3 to 5).

    Args:
        phi: [..., M]; higher is more important.

    Returns:
        [..., M] in [0, 1]; 0.5 throughout where a map is constant but for rounding: that and one minus it weigh all
        patches alike.
    """
    low, high = phi.amin(-1, keepdim=True), phi.amax(-1, keepdim=True)
    scaled = (phi - low) / (high - low).clamp(min=torch.finfo(phi.dtype).tiny)
    return scaled.masked_fill(is_constant(phi)[..., None], 0.5)


def weighted_ranks(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Draw all patches one after the other, without replacement, each with a chance in proportion to its weight.

    The first m patches of such a draw are a draw of m patches, for every m. Done for all rows at once: the order of
    `log(weight) + Gumbel noise` has that distribution (Yellott 1977; Kool et al. 2019).

    Args:
        weights: [..., M], 0 or more; what is below `SMALLEST_WEIGHT` counts as that.
        generator: Source of the noise; on the device of the weights nothing has to be moved.

    Returns:
        [..., M] the rank of each patch in its draw, 0 for the one that was drawn first.
    """
    uniform = torch.rand(weights.shape, generator=generator, device=generator.device, dtype=torch.float64)
    gumbel = -(-uniform.log()).log()
    keys = weights.double().clamp(min=SMALLEST_WEIGHT).log() + gumbel.to(weights.device)
    return keys.argsort(dim=-1, descending=True, stable=True).argsort(-1)


def random_masks(images: int, players: int, sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Coalitions of given sizes, every one of a size alike.

    Args:
        images: B.
        players: M.
        sizes: [S] how many patches each coalition keeps, shared by all images, or [B, S].
        generator: Source of the draw; the result is on its device.

    Returns:
        Bool [B, S, M].
    """
    shape = (images, sizes.shape[-1], players)
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    # Stable, because equal numbers occur, and the order of those would be the processor's own.
    ranks = drawn.argsort(dim=-1, stable=True).argsort(-1)
    return ranks < sizes.to(ranks.device)[..., None]


def ranks_with_random_ties(values: Tensor, generator: torch.Generator) -> Tensor:
    """The rank of each entry in its row, 0 for the largest; equal ones come in random order.

    An order by position would earn points where position does.

    The generator is drawn from for every entry, whether there are ties or not.

    Args:
        values: [B, N]; so are the ranks.
        generator: Source of the order of ties.
    """
    shuffled = torch.rand(values.shape, generator=generator, device=generator.device, dtype=torch.float64)
    shuffled = shuffled.argsort(dim=-1, stable=True)
    shuffled = shuffled.to(values.device)
    order = shuffled.gather(1, values.gather(1, shuffled).argsort(dim=-1, descending=True, stable=True))
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A source of draws on a device, seeded by one of `generator`, or that itself where it is there."""
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(1 << 62, (), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(seed)


@contextmanager
def torch_seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Let what draws from torch itself on the CPU and a device, as dropout does, follow from a draw of `generator`."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        yield


def step_generator(seed: int, step: int, device: torch.device, rank: int = 0) -> torch.Generator:
    """The source of what a training step draws; a resumed run draws at a step what the killed one would have drawn.

    Each of several processes that share a step has, by its rank, a source of its own; `common_and_own` is for steps in
    which some of what they draw shall agree.
    """
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step + rank * _APART)


def common_and_own(seed: int, step: int, device: torch.device, rank: int) -> tuple[torch.Generator, torch.Generator]:
    """Two sources for a training step: what every rank draws alike, and what a rank draws for its own images.

    Rank 0 has one source for both: from two of one seed, the size of a coalition would tell which patches are in it. So
    what is common has to be drawn first.
    """
    common = step_generator(seed, step, device)
    return common, step_generator(seed, step, device, rank) if rank else common
