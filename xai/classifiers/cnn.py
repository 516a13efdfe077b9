"""The networks around a convolutional classifier: its surrogate, and FastSHAP; each trained once."""

from dataclasses import dataclass
from typing import Any

from xai.classifiers.learned import LearningStages
from xai.classifiers.params import FastShapParams
from xai.methods.vit_shapley import VitShapley
from xai.models.cnn import CnnParams
from xai.models.families import seeded
from xai.models.unet import FastShapNetwork


@dataclass
class CnnStages(LearningStages):
    """A convolutional network, and everything that is trained around it: FastSHAP (Jethani et al. 2022)."""

    model: CnnParams

    def untrained(self, params: Any) -> FastShapNetwork:
        """The explainer before its training; UserError: the network gives no intermediate features."""
        model, grid = self.model, (self.model.grid, self.model.grid)
        backbone = model.build(self.outputs, self.seed)
        with seeded(self.seed):
            return FastShapNetwork(backbone, params.width, self.outputs, grid, model.image_size, model.mean, model.std)

    def _module(self, network: FastShapNetwork, surrogate: Any, params: FastShapParams, stage: str) -> VitShapley:
        return VitShapley(network, surrogate, params.fit, params.masks, self.seed, stage)

    def _said(self, params: FastShapParams) -> dict[str, Any]:
        return {"unet": {"width": params.width}}
