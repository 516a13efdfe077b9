"""The networks of a SALVAGE experiment as artifacts: classifier, surrogate, explainers; each trained once."""

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule

from xai.classifiers.networks import FILES, REVISION, ClassifierStages
from xai.classifiers.params import SalvageParams, VitShapleyParams
from xai.core.checkpoints import kept_weights, on_the_way
from xai.core.store import Artifact
from xai.data.registry import load_images
from xai.methods.salvage import Salvage, log_predictions
from xai.methods.vit_shapley import VitShapley
from xai.models.explainer import (
    AnchoredSalvageNetwork,
    ExplainerNetwork,
    SalvageNetwork,
    ShapleyNetwork,
    vit_explainer,
)
from xai.models.families import seeded
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.timm_vit import MaskableVit
from xai.models.vit import VitParams, build_vit
from xai.models.weights import load_weights, read_weights


@dataclass
class VitStages(ClassifierStages):
    """A vision transformer, and everything that is trained around it."""

    model: VitParams

    @cached_property
    def width(self) -> int:
        """Of the tokens."""
        shell: Any = self._shell()
        return int(shell.embed_dim)

    @property
    def surrogate_removal(self) -> Removal:
        """A transformer is never shown the token of a patch that is removed."""
        return Removal("tokens")

    def _student(self) -> MaskableVit:
        return self.network("classifier")

    def salvage(self, params: SalvageParams) -> Artifact:
        """A trained SALVAGE explainer."""
        return self._explainer("salvage", params)

    def vit_shapley(self, params: VitShapleyParams) -> Artifact:
        """A trained ViT-Shapley explainer."""
        return self._explainer("vit_shapley", params)

    def network(self, kind: str, removal: Removal | None = None) -> MaskableVit:
        """`classifier` or `surrogate` from the store, on the device, in evaluation mode."""
        network = super().network(kind, removal)
        assert isinstance(network, MaskableVit)
        return network

    def explainer(
        self, kind: str, params: SalvageParams | VitShapleyParams, artifact: Artifact, share: float = 1.0
    ) -> ExplainerNetwork:
        """An explainer from the store after a share of its training, on the device, in evaluation mode."""
        network = self._untrained(kind, params)
        tensors = read_weights(artifact.file(FILES[kind] if share == 1 else _snapshot(share)), what=kind).tensors
        load_weights(network, tensors, what=kind, model=self.model.name)
        return network.to(self.runtime.trainer.device).eval().requires_grad_(False)

    def _explainer(self, kind: str, params: SalvageParams | VitShapleyParams) -> Artifact:
        spec = {"surrogate": self.surrogate.key, **_asked(params), "seed": self.seed, "revision": REVISION}

        def make(workdir: Path) -> None:
            network, surrogate = self._untrained(kind, params), self.network("surrogate")
            self._begin(network, surrogate)
            if isinstance(network, AnchoredSalvageNetwork):
                self._anchor(network, surrogate)
            module = self._module(network, surrogate, params)
            self.train(module, params.fit, workdir, _called(kind, params), params.snapshots)
            decoder = {"kind": params.decoder, "depth": params.depth, "heads": params.heads}
            decoder |= {"anchored": isinstance(network, AnchoredSalvageNetwork)}
            self._write(workdir, kind, network, decoder=decoder)
            for share in params.snapshots:
                module.load_state_dict(kept_weights(workdir, on_the_way(share)))
                self._write(workdir, kind, network, _snapshot(share), decoder=decoder)

        return self.get(kind, spec, make)

    def _anchor(self, network: AnchoredSalvageNetwork, surrogate: MaskableClassifier) -> None:
        """Ask once what is said of no patch: the mean over some images, should their removed patches not look alike."""
        size, device = self.model.image_size, self.runtime.trainer.device
        images = load_images(
            self.data.source, "train", torch.arange(min(8, len(self.data.source.labels("train")))), 0, size
        ).pixels.to(device)
        nothing = torch.zeros(len(images), 1, surrogate.players, dtype=torch.bool, device=device)
        network.empty.copy_(log_predictions(surrogate, images, nothing).mean((0, 1)))

    def _begin(self, network: ExplainerNetwork, surrogate: MaskableVit) -> None:
        """An explainer starts where the classifier has arrived."""
        backbone = surrogate.network.state_dict()
        own = {name: value for name, value in backbone.items() if not name.startswith("head.")}
        network.backbone.load_state_dict(own)

    def _module(
        self, network: ExplainerNetwork, surrogate: MaskableVit, params: SalvageParams | VitShapleyParams
    ) -> LightningModule:
        if isinstance(params, SalvageParams):
            assert isinstance(network, SalvageNetwork)
            stage = f"salvage/{self.data.name}"
            how = (params.masks, params.sampling, params.temperature, params.divergence)
            return Salvage(network, surrogate, params.fit, *how, self.seed, stage)
        assert isinstance(network, ShapleyNetwork)
        stage = f"vit_shapley/{self.data.name}"
        masks = (params.sampling, params.weighted)
        return VitShapley(network, surrogate, params.fit, params.masks, self.seed, stage, *masks)

    def _untrained(self, kind: str, params: SalvageParams | VitShapleyParams) -> ExplainerNetwork:
        backbone = build_vit(self.model, self.outputs, self.seed)
        anchored = isinstance(params, SalvageParams) and params.anchored
        with seeded(self.seed):
            return vit_explainer(
                kind,
                backbone,
                self.outputs,
                self.model.mean,
                self.model.std,
                decoder=params.decoder,
                depth=params.depth,
                heads=params.heads,
                anchored=anchored,
            )


def _asked(params: SalvageParams | VitShapleyParams) -> dict[str, Any]:
    """What a training is made of; one of before there was a choice keeps its key."""
    values = asdict(params)
    if not values.get("anchored", True):
        del values["anchored"]
    if isinstance(params, VitShapleyParams) and params.sampling in ("paired", "shapley_kernel"):
        del values["weighted"]
        if params.sampling == "paired":
            del values["sampling"]
    return values


def _called(kind: str, params: SalvageParams | VitShapleyParams) -> str:
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
    return f"{kind} ({', '.join(apart)})" if apart else kind


def _snapshot(share: float) -> str:
    """The file of an explainer after a share of its training."""
    return f"snapshots/{share:g}.safetensors"
