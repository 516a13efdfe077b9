"""Shapley values by the orders in which players can enter (Castro et al. 2009), for a whole batch of games at once."""

import torch
from torch import Tensor

from xai.shapley.design import Game


def antithetic_orders(players: int, pairs: int, generator: torch.Generator) -> Tensor:
    """Orders drawn at random, each followed by itself backwards (antithetic sampling, Mitchell et al. 2022).

    A player that comes early in one comes late in the other. What two players are worth only together goes to whoever
    comes second, so that a pair of orders shares it evenly: of games without interactions of three or more, a single
    pair gives the exact values.

    Returns:
        [2 pairs, M] players in the order in which they enter.
    """
    # Stable, because equal numbers occur, and the order of those would be the processor's own.
    drawn = torch.rand(pairs, players, generator=generator).argsort(dim=1, stable=True)
    return torch.stack([drawn, drawn.flip(1)], dim=1).flatten(0, 1)


def permutation_shapley(game: Game, orders: Tensor) -> Tensor:
    """The mean over orders of what a player adds to those who have entered before.

    Unbiased where every player is as likely in each place. The empty and the full coalition are asked once, so that P
    orders cost P (M - 1) + 2 coalitions.

    Args:
        game: B games of M players.
        orders: [P, M], each row the players 0 ... M - 1 in the order in which they enter.

    Returns:
        [B, M, C] or [B, M], in the dtype of the values; added up in float64. Their sum over players is
        v(N) - v(empty), exactly.

    Raises:
        ValueError: Where `orders` are none of the game's players.
    """
    players = game.players
    fits = orders.ndim == 2 and len(orders) and orders.shape[1] == players
    if not fits or not orders.sort(1).values.eq(torch.arange(players)).all():
        raise ValueError(f"orders are {list(orders.shape)}: every row has to hold each of 0 ... {players - 1} once")
    places = orders.argsort(1)
    entered = places[:, None, :] < torch.arange(1, players)[:, None]
    ends = torch.tensor([[False], [True]]).expand(-1, players)
    answers = game.value(torch.cat([ends, entered.flatten(0, 1)]))
    values = answers.double()
    first, last = (values[:, end, None, None].expand(-1, len(orders), 1, *values.shape[2:]) for end in (0, 1))
    gains = torch.cat([first, values[:, 2:].unflatten(1, entered.shape[:2]), last], dim=2).diff(dim=2)
    return gains[:, torch.arange(len(orders))[:, None], places].mean(1).to(answers.dtype)
