"""The networks of a SALVAGE experiment as artifacts: classifier, surrogate, explainers; each trained once."""

from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule

from xai.classifiers.learned import LearningStages
from xai.classifiers.params import SalvageParams, VitShapleyParams
from xai.data.registry import load_images
from xai.methods.salvage import Salvage, log_predictions
from xai.methods.vit_shapley import VitShapley
from xai.models.explainer import AnchoredSalvageNetwork, ExplainerNetwork, vit_explainer
from xai.models.families import seeded
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.spec import TokenDecoder
from xai.models.vit import VitParams


@dataclass
class VitStages(LearningStages):
    """A vision transformer, and everything that is trained around it: SALVAGE and ViT-Shapley."""

    model: VitParams

    @property
    def surrogate_removal(self) -> Removal:
        """A transformer is never shown the token of a patch that is removed."""
        return Removal("tokens")

    def _student(self) -> MaskableClassifier:
        return self.network("classifier")

    def untrained(self, params: Any) -> ExplainerNetwork:
        """The explainer before its training, with weights of its own; UserError: its heads do not fit the network."""
        model, shape = self.model, TokenDecoder(**self._said(params)["decoder"])
        backbone = model.build(self.outputs, self.seed)
        with seeded(self.seed):
            return vit_explainer(params.kind, backbone, self.outputs, model.mean, model.std, shape)

    def _module(
        self, network: Any, surrogate: Any, params: SalvageParams | VitShapleyParams, stage: str
    ) -> LightningModule:
        if isinstance(network, AnchoredSalvageNetwork):
            self._anchor(network, surrogate)
        if isinstance(params, SalvageParams):
            how = (params.masks, params.sampling, params.divergence)
            return Salvage(network, surrogate, params.fit, *how, self.seed, stage)
        masks = (params.sampling, params.weighted)
        return VitShapley(network, surrogate, params.fit, params.masks, self.seed, stage, *masks)

    def _anchor(self, network: AnchoredSalvageNetwork, surrogate: MaskableClassifier) -> None:
        """Ask once what is said of no patch: the mean over some images, should their removed patches not look alike."""
        size, device = self.model.image_size, self.runtime.trainer.device
        some = torch.arange(min(8, len(self.data.source.labels("train"))))
        images = load_images(self.data.source, "train", some, 0, size).pixels.to(device)
        nothing = torch.zeros(len(images), 1, surrogate.players, dtype=torch.bool, device=device)
        network.empty.copy_(network.temperature * log_predictions(surrogate, images, nothing).mean((0, 1)))

    def _said(self, params: SalvageParams | VitShapleyParams) -> dict[str, Any]:
        shape: dict[str, Any] = {"kind": params.decoder, "depth": params.depth, "heads": params.heads}
        if isinstance(params, SalvageParams):
            shape |= {"anchored": params.anchored, "temperature": params.temperature}
        return {"decoder": shape}
