"""Kernel SHAP of a few patches: what the shap package does by default, so that its numbers can be had here too."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xai.shapley.design import Design
from xai.shapley.regression import Regression

Select = Literal["all", "aic"] | int
"""Which patches take part: `all` (shap's `l1_reg=False`); those that Akaike's criterion picks along the path of the
lasso (`l1_reg="aic"`, shap's default until 2023 where few coalitions are asked); or the first so many that least angle
regression picks (`l1_reg="num_features(10)"`, its default since)."""


def solve_selected(design: Design, values: Tensor, empty: Tensor, full: Tensor, select: Select) -> Tensor:
    """Least squares over selected patches; the others get exactly zero, and share in nothing.

    Args:
        design: The coalitions, shared by all games.
        values: v(S), [B, S] or [B, S, C].
        empty: v of the empty coalition, [B] or [B, C].
        full: v of the full coalition, [B] or [B, C].
        select: How patches are selected, for each game by itself.

    Returns:
        phi [B, M] or [B, M, C] in the dtype of `values`. It adds up to v(N) - v(empty), but where none was selected.
    """
    if select == "all":
        return Regression(design, values, empty, full).values()
    many = values.ndim == 3
    columns = (t.unsqueeze(-1) if not many else t for t in (values, empty, full))
    answers, nothing, everything = (t.double().cpu().movedim(-1, 1).flatten(0, 1) for t in columns)
    rows = design.coalitions.cpu()
    phi = torch.zeros(len(answers), rows.shape[1], dtype=torch.float64)
    for game, (v, v0, v1) in enumerate(zip(answers, nothing, everything, strict=True)):
        kept = torch.from_numpy(_selected(rows, design.weights.cpu(), v - v0, v1 - v0, select))
        if len(kept):
            few = Design(rows[:, kept], design.weights.cpu(), design.inclusion.cpu(), design.paired)
            phi[game, kept] = Regression(few, v[None], v0[None], v1[None]).values()[0]
    phi = phi.unflatten(0, (len(values), -1)).movedim(1, -1).to(values)
    return phi if many else phi[..., 0]


def _selected(rows: Tensor, weights: Tensor, gain: Tensor, total: Tensor, select: Select) -> np.ndarray:
    """Numbers of the patches that enter, by the two equations of each coalition, of what it gains and what it lacks."""
    from sklearn.linear_model import LassoLarsIC, lars_path
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    present = rows.double()
    sizes, players = present.sum(1), present.shape[1]
    root = torch.cat([weights * (players - sizes), weights * sizes]).sqrt()
    x = (root[:, None] * torch.cat([present, present - 1])).numpy()
    y = (root * torch.cat([gain, gain - total])).numpy()
    if select == "aic":
        model = make_pipeline(StandardScaler(with_mean=False), LassoLarsIC(criterion="aic"))
        return np.flatnonzero(model.fit(x, y)[1].coef_)
    return np.asarray(lars_path(x, y, max_iter=select)[1], dtype=int)
