"""Kernel SHAP as an explainer (Lundberg and Lee 2017)."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.explainers.block import source
from xai.explainers.posthoc.params import GameParams
from xai.explainers.registry import explainer
from xai.games import PatchGame
from xai.models.maskable import MaskableClassifier
from xai.shapley.coalitions import SAMPLERS
from xai.shapley.kernel_shap import kernel_shap


@dataclass(frozen=True)
class KernelShapParams(GameParams):
    """How Shapley values are estimated.

    Args:
        coalitions: P, the perturbed images evaluated for each image.
        evaluation_coalitions: P for validation and test images, which every row is measured against; null takes
            `coalitions`.
        sampler: How coalitions are drawn: `shapley_kernel`, `paired`, `leverage` or `without_replacement`
            (`xai.shapley.coalitions`).
    """

    coalitions: int
    evaluation_coalitions: int | None
    sampler: str = "leverage"

    def __post_init__(self) -> None:
        """Refuse settings that cannot be computed."""
        super().__post_init__()
        if self.sampler not in SAMPLERS:
            raise UserError(f"sampler={self.sampler} is unknown: use one of {', '.join(SAMPLERS)}")
        for name in ("coalitions", "evaluation_coalitions"):
            number = getattr(self, name)
            if number is None:
                continue
            if number < 2:
                raise UserError(f"{name}={number} must be at least 2: nothing is learned from fewer")
            if number % 2 and self.sampler != "shapley_kernel":
                raise UserError(f"{name}={number} must be even: the coalitions of sampler={self.sampler} come in pairs")

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
class KernelShap:
    """Explains all images of a call with one design of coalitions.

    Args:
        classifier: The classifier to explain, on its device.
        params: The estimator.
    """

    def __init__(self, classifier: MaskableClassifier, params: KernelShapParams) -> None:
        self._classifier, self._params = classifier, params

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Shapley values [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        game = PatchGame(self._classifier, images, targets, output=self._params.output)
        phi = kernel_shap(game, self._params.coalitions, source(generator), sampler=self._params.sampler)
        return phi.reshape(-1, *self._classifier.grid)
