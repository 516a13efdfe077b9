"""Explainers that learn from the surrogate of a classifier, a ViT or a CNN: each is trained once, and found again."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule

from xai.classifiers.networks import FILES, REVISION, ClassifierStages
from xai.classifiers.params import FastShapParams, SalvageParams, VitShapleyParams
from xai.core.checkpoints import kept_weights, on_the_way
from xai.core.store import Artifact
from xai.data.registry import load_images
from xai.methods.salvage import Salvage, log_predictions
from xai.methods.vit_shapley import VitShapley
from xai.models.cnn import CnnParams
from xai.models.explainer import AnchoredSalvageNetwork, ExplainerNetwork, vit_explainer
from xai.models.families import seeded
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.spec import TokenDecoder
from xai.models.unet import FastShapNetwork
from xai.models.vit import VitParams
from xai.models.weights import load_weights, read_weights

LearnedParams = SalvageParams | VitShapleyParams | FastShapParams


@dataclass
class LearningStages(ClassifierStages):
    """A classifier, its surrogate, and explainers with layers like theirs; a subclass says of which family they are."""

    def learned(self, params: LearnedParams) -> Artifact:
        """A trained explainer, of the kind that its settings are of."""
        kind = params.kind
        spec = {"surrogate": self.surrogate.key, **_asked(params), "seed": self.seed, "revision": REVISION}

        def make(workdir: Path) -> None:
            network, surrogate = self.untrained(params), self.network("surrogate")
            self._begin(network, surrogate)
            module = self._module(network, surrogate, params, f"{kind}/{self.data.name}")
            self.train(module, params.fit, workdir, _called(params), params.snapshots)
            self.write(workdir, kind, network, **self._said(params))
            for share in params.snapshots:
                module.load_state_dict(kept_weights(workdir, on_the_way(share)))
                self.write(workdir, kind, network, _snapshot(share), **self._said(params))

        return self.get(kind, spec, make)

    def explainer(self, params: LearnedParams, artifact: Artifact, share: float = 1.0) -> Any:
        """An explainer from the store after a share of its training, on the device, in evaluation mode."""
        network = self.untrained(params)
        file = artifact.file(FILES[params.kind] if share == 1 else _snapshot(share))
        load_weights(network, read_weights(file, what=params.kind).tensors, what=params.kind, model=self.model.name)
        return network.to(self.runtime.trainer.device).eval().requires_grad_(False)

    def untrained(self, params: LearnedParams) -> Any:
        """The explainer before its training, with weights of its own; UserError: the network does not fit it."""
        raise NotImplementedError

    def _begin(self, network: Any, surrogate: Any) -> None:
        """An explainer starts where the classifier has arrived."""
        arrived, own = surrogate.network.state_dict(), network.backbone.state_dict()
        network.backbone.load_state_dict({name: arrived[name] for name in own})

    def _module(self, network: Any, surrogate: Any, params: Any, stage: str) -> LightningModule:
        """The training of an explainer."""
        raise NotImplementedError

    def _said(self, params: Any) -> dict[str, Any]:
        """What its file says of its decoder."""
        raise NotImplementedError


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


def _asked(params: LearnedParams) -> dict[str, Any]:
    """What a training is made of; one of before there was a choice keeps its key."""
    values = asdict(params)
    if not values.get("anchored", True):
        del values["anchored"]
    if values.get("anchored") and values["temperature"] != 1:
        values["anchor"] = "temperature"  # it was not heeded before
    if isinstance(params, VitShapleyParams) and params.sampling in ("paired", "shapley_kernel"):
        del values["weighted"]
        if params.sampling == "paired":
            del values["sampling"]
    return values


def _called(params: LearnedParams) -> str:
    """What the training of an explainer is called: with its masks and loss, where they are not the paper's."""
    usual = {field.name: field.default for field in fields(params)}
    apart = [
        str(value)
        for name in ("sampling", "divergence")
        if (value := getattr(params, name, None)) is not None and value != usual[name]
    ]
    if getattr(params, "anchored", False):
        apart.append("anchored")
    if getattr(params, "weighted", True) is False and "sampling" in _asked(params):
        apart.append("unweighted")
    return f"{params.kind} ({', '.join(apart)})" if apart else params.kind


def _snapshot(share: float) -> str:
    """The file of an explainer after a share of its training."""
    return f"snapshots/{share:g}.safetensors"
