"""Kernel SHAP as an explainer (Lundberg and Lee 2017)."""

from dataclasses import replace
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from xai.core.settings import Count, FieldError, settings
from xai.explainers.block import OfClassifier, source
from xai.explainers.params import GameParams
from xai.explainers.registry import explainer
from xai.games import PatchGame
from xai.shapley.kernel_shap import kernel_shap

Several = Annotated[int, Field(ge=2)]


@settings
class KernelShapParams(GameParams):
    """How Shapley values are estimated.

    Args:
        coalitions: P, the perturbed images evaluated for each image.
        evaluation_coalitions: P for validation and test images, which every row is measured against; null takes
            `coalitions`.
        sampler: How coalitions are drawn: `shapley_kernel`, `paired`, `leverage` or `without_replacement`
            (`xai.shapley.coalitions`).
        select: Which patches get a value at all, as shap's `l1_reg`: `all`, those that the lasso and Akaike's criterion
            pick (`aic`), or how many least angle regression picks.
    """

    coalitions: Several
    evaluation_coalitions: Several | None
    sampler: Literal["shapley_kernel", "paired", "leverage", "without_replacement"] = "leverage"
    select: Literal["all", "aic"] | Count = "all"

    def __post_init__(self) -> None:
        """Refuse half a pair."""
        for name in ("coalitions", "evaluation_coalitions"):
            if (getattr(self, name) or 0) % 2 and self.sampler != "shapley_kernel":
                raise FieldError(name, f"must be even: the coalitions of sampler={self.sampler} come in pairs")

    def for_split(self, split: str) -> Self:
        """P is `evaluation_coalitions` where results are measured."""
        number = self.coalitions if split == "train" else self.evaluation_coalitions or self.coalitions
        return replace(self, coalitions=number, evaluation_coalitions=None)


@explainer(
    "kernel_shap",
    label="Kernel SHAP",
    about="Shapley values by constrained least squares over sampled coalitions",
    params=KernelShapParams,
    needs={"game"},
    passes=lambda params, patches: params.coalitions + 2,
)
class KernelShap(OfClassifier[KernelShapParams]):
    """Explains all images of a call with one design of coalitions."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Shapley values [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        game, params = PatchGame(self.classifier, images, targets, output=self.params.output), self.params
        phi = kernel_shap(game, params.coalitions, source(generator), sampler=params.sampler, select=params.select)
        return phi.reshape(-1, *self.classifier.grid)
