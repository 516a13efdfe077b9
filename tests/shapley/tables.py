"""Games given as the table of all their values, in float64, and their Shapley values by brute force."""

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor


def all_rows(players: int) -> Tensor:
    """Every coalition [2^M, M]; row number c holds the players whose bit is set in c, player 0 the highest."""
    return torch.tensor(list(itertools.product([False, True], repeat=players)))


def codes(coalitions: Tensor) -> Tensor:
    """Row numbers in the table."""
    return (coalitions.long() * 2 ** torch.arange(coalitions.shape[-1]).flip(0)).sum(-1)


def random_table(players: int, seed: int = 0, games: int = 3, classes: int | None = None) -> Tensor:
    """[games, 2^M] or [games, 2^M, classes]: nothing but noise, empty and full coalition included."""
    shape = (games, 2**players) if classes is None else (games, 2**players, classes)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth_table(players: int, seed: int = 0, games: int = 3) -> Tensor:
    """[games, 2^M]: a sigmoid of weights and pairwise interactions, as a classifier's probability is."""
    generator = torch.Generator().manual_seed(seed)
    z = all_rows(players).double()
    weights = torch.randn(games, players, generator=generator, dtype=torch.float64)
    pairs = torch.randn(games, players, players, generator=generator, dtype=torch.float64) / players**0.5
    return torch.sigmoid(weights @ z.T + 0.5 * torch.einsum("sm,bmn,sn->bs", z, pairs, z) - 1)


@dataclass
class TableGame:
    """A game that looks its values up, and remembers what it was asked: coalitions [S, M], or its own for each game."""

    table: Tensor
    asked: list[Tensor] = field(default_factory=list)

    @property
    def players(self) -> int:
        return self.table.shape[1].bit_length() - 1

    def value(self, coalitions: Tensor) -> Tensor:
        self.asked.append(coalitions)
        return self.table[:, codes(coalitions)] if coalitions.ndim == 2 else self.table.gather(1, codes(coalitions))


def shapley_by_permutations(table: Tensor) -> Tensor:
    """The definition: the mean marginal contribution over every order in which the players can enter."""
    players = table.shape[1].bit_length() - 1
    orders = torch.tensor(list(itertools.permutations(range(players))))
    entered = torch.cumsum(2 ** (players - 1 - orders), dim=1)
    values = table[:, torch.cat([torch.zeros(len(orders), 1, dtype=torch.long), entered], dim=1)]
    places = orders.argsort(1)
    marginal = values[:, :, 1:] - values[:, :, :-1]
    return torch.stack([marginal[:, torch.arange(len(orders)), places[:, m]].mean(1) for m in range(players)], dim=1)


def shapley_by_dividends(table: Tensor) -> Tensor:
    """Every coalition's own surplus, shared alike by its members (Harsanyi 1959): affordable for a dozen players."""
    players = table.shape[1].bit_length() - 1
    surplus = table.clone()
    for bit in (2**k for k in range(players)):
        members = torch.arange(2**players)[torch.arange(2**players) & bit != 0]
        surplus[:, members] -= surplus[:, members ^ bit]
    rows = all_rows(players).double()
    return torch.einsum("sm,bs...->bm...", rows / rows.sum(1, keepdim=True).clamp(min=1), surplus)
