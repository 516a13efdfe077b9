"""Kernel SHAP with few coalitions, that starts at another row's maps: a trained explainer's, for one pass more."""

from dataclasses import asdict
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core.settings import EvenCount, settings
from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation, explain
from xai.explainers.of_row import OfRowParams, made_from_row, row_of
from xai.explainers.params import GameParams
from xai.explainers.registry import Context, Prepared, explainer
from xai.games import PatchGame
from xai.models.maskable import MaskableClassifier
from xai.shapley.proxy import kernel_shap_with_proxy


@settings
class KernelShapProxyParams(OfRowParams, GameParams):
    """Whose maps are started at, and how much is asked beyond them.

    Args:
        of: The row; maps of pixels are averaged within patches. A constant map is no start, and leaves the ridge alone.
        coalitions: P, the perturbed images evaluated for each image; even.
        sampler: How coalitions are drawn: `leverage`, `without_replacement` or `paired`.
    """

    coalitions: EvenCount
    sampler: Literal["leverage", "without_replacement", "paired"] = "leverage"


class KernelShapProxy:
    """Explains all images of a call with one design of coalitions.

    Args:
        start: Whose maps.
        classifier: What is asked.
        params: How much.
        pick: Which of the stages of a path is started at; None where there is no path.
    """

    def __init__(
        self,
        start: Explainer | BlockExplainer,
        classifier: MaskableClassifier,
        params: KernelShapProxyParams,
        pick: int | None = None,
    ) -> None:
        self._start, self._classifier, self._params, self._pick = start, classifier, params, pick

    @torch.no_grad()
    def explain(self, block: Block) -> Explanation:
        """Shapley values [B, h, w]."""
        params, maps = self._params, explain(self._start, block).maps
        assert maps is not None
        maps = maps if self._pick is None else maps[:, self._pick]
        guess: Tensor = F.adaptive_avg_pool2d(maps, self._classifier.grid).flatten(1)
        game = PatchGame(self._classifier, block.images, block.targets, output=params.output)
        phi = kernel_shap_with_proxy(game, params.coalitions, block.generator, guess, sampler=params.sampler)
        return Explanation(phi.reshape(-1, *self._classifier.grid))


@explainer(
    "kernel_shap_proxy",
    label="Kernel SHAP + map",
    about="Kernel SHAP with few coalitions, that starts at the maps of another row",
    params=KernelShapProxyParams,
    kind="refined",
    needs={"game"},
    check=lambda context, params: row_of(context, params.of, "kernel_shap_proxy"),
)
def kernel_shap_proxy(context: Context, params: KernelShapProxyParams) -> Prepared:
    """The other row's explainer, and the game."""
    row = context.row(params.of)
    pick = row.entry.prepare(context, row.params).pick
    # Whatever the other row is a part of, this is a map of its own.
    return made_from_row(
        context,
        params.of,
        "kernel_shap_proxy",
        lambda of: KernelShapProxy(of, context.network(params.classifier_removal), params, pick),
        lambda passes: passes + min(params.coalitions + 2, 2 ** context.blank().players),
        {**asdict(params), "pick": pick},
        pick=None,
        pool=None,
        share=1.0,
    )
