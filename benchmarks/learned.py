"""Learned explainers that train without Lightning's trainer, on random weights, and the surrogates they ask."""

from typing import Any, Self, TypeVar

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from xai.classifiers.params import SalvageParams
from xai.methods.salvage import Salvage
from xai.methods.vit_shapley import VitShapley
from xai.models.explainer import ExplainerNetwork, SalvageNetwork, ShapleyNetwork, ShapleyParts, build_decoder, column
from xai.models.maskable import Encoded, MaskableClassifier, Rows, class_logits
from xai.models.timm_vit import MaskableVit
from xai.models.vit import VitParams
from xai.sampling import step_generator
from xai.shapley.masks import informed_coalitions, uniform_sizes

CLASSES = 10
"""C, of every classifier here."""

Explainer = TypeVar("Explainer", bound=ExplainerNetwork)
Network = TypeVar("Network", bound=nn.Module)


def surrogate_of(model: VitParams) -> MaskableVit:
    """A surrogate, frozen and in evaluation mode."""
    return model.maskable(_lively(model.build(CLASSES, seed=0))).eval().requires_grad_(False)


def explainer_of(model: VitParams, params: SalvageParams, made: type[Explainer], scores: int) -> Explainer:
    """An explainer that gives so many scores a class."""
    backbone = model.build(CLASSES, seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        decoder = build_decoder(params.decoder, backbone.embed_dim, scores * CLASSES, params.depth, params.heads)
    return _lively(made(backbone, decoder, model.mean, model.std))


def _lively(network: Network) -> Network:
    """Draw the matrices of a network anew, so large that what it gives depends on what it sees.

    With the weights that training starts from all coalitions have nearly the same value, an explainer attributes
    nothing at all, and work left undone would not show.
    """
    generator = torch.Generator().manual_seed(2)
    for value in network.parameters():
        if value.ndim in (2, 4):
            value.data = torch.randn(value.shape, generator=generator) * value[0].numel() ** -0.5
    return network


class AttentionMasked(MaskableClassifier):
    """A surrogate that computes every token and masks the removed ones out of every attention, by timm's own forward.

    Args:
        plain: The surrogate.
    """

    def __init__(self, plain: MaskableVit) -> None:
        super().__init__()
        self.normalisation, self.network, self.grid = plain.normalisation, plain.network, plain.grid

    def encode(self, images: Tensor) -> Encoded:
        """Embedded tokens [B, L, D] of images [B, 3, H, W]."""
        network = self.network
        return (network.norm_pre(network._pos_embed(network.patch_embed(self.normalisation(images)))),)

    def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
        """Logits [N, C] of N coalitions of encoded images."""
        tokens = encoded[0][rows.owner]
        length = tokens.shape[1]
        seen = F.pad(rows.keep, (length - self.players, 0), value=True)
        # Row i, column j: may token i attend to token j?
        mask = seen[:, None, None, :].expand(-1, -1, length, -1)
        for block in self.network.blocks:
            tokens = block(tokens, attn_mask=mask)
        return class_logits(self.network.forward_head(self.network.norm(tokens)))

    def cost(self, kept: int) -> int:
        """Tokens of a coalition: all, whatever it keeps."""
        return int(self.network.num_prefix_tokens) + self.players


class Alone(LightningModule):
    """What a module needs in the place of Lightning's trainer, which does work that is no part of a step."""

    taken = 0
    """Steps so far."""

    @property
    def global_step(self) -> int:
        """The number of the step, by which its coalitions are drawn."""
        return self.taken

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""


class SalvageStep(Alone, Salvage):
    """SALVAGE as it is trained here."""

    @classmethod
    def of(cls, model: VitParams, params: SalvageParams, surrogate: MaskableClassifier) -> Self:
        """The module that explains a model."""
        network = explainer_of(model, params, SalvageNetwork, scores=2)
        network.temperature = params.temperature
        return cls(
            network,
            surrogate,
            params.fit,
            params.masks,
            params.sampling,
            params.divergence,
            seed=0,
            stage="salvage",
        )


class OwnSizes(SalvageStep):
    """SALVAGE with coalitions whose sizes every image draws for itself."""

    @torch.no_grad()
    def _coalitions(self, parts: ShapleyParts, labels: Tensor, step: int) -> Tensor:
        images, players = parts.present.shape[:2]
        generator = step_generator(self._seed, step, labels.device)
        sizes = uniform_sizes(players, images * self._masks, generator).reshape(images, self._masks)
        return informed_coalitions(column(parts.present - parts.absent, labels), sizes, generator)


class VitShapleyStep(Alone, VitShapley):
    """ViT-Shapley as it is trained here, with as many coalitions as SALVAGE."""

    @classmethod
    def of(cls, model: VitParams, params: SalvageParams, surrogate: MaskableClassifier) -> Self:
        """The module that explains a model."""
        network = explainer_of(model, params, ShapleyNetwork, scores=1)
        return cls(network, surrogate, params.fit, params.masks, seed=0, stage="vit_shapley")


Learner = SalvageStep | VitShapleyStep
"""A method that is learned step by step."""
