"""SALVAGE (Naouar et al. 2025): learning the distribution that a classifier predicts for masked images."""

import math

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.games import PatchGame
from xai.methods.learner import Learner
from xai.models.explainer import SalvageNetwork, ShapleyParts, column
from xai.models.maskable import MaskableClassifier
from xai.sampling import common_and_own
from xai.shapley.distribution import DIVERGENCES, distribution_loss
from xai.shapley.masks import informed_coalitions, kernel_sizes, random_masks, uniform_sizes

SAMPLINGS = ("informed", "shapley_kernel", "uniform")


class Salvage(Learner):
    """Trains phi+ and phi- on the game of the surrogate.

    Args:
        network: The explainer; trained in place.
        surrogate: What answers v(S), frozen.
        masks: Coalitions an image and step; even.
        sampling: `informed` (Algorithm 3, by the explainer's own attributions of the true class), `uniform` (the same
            sizes, patches at random) or `shapley_kernel` (p_w of equation 2, patches at random).
        temperature: Of equation 4.
        divergence: What brings u(S) to v(S): `jensen_shannon`, equation 5, or `kullback_leibler`.
        params, seed, stage: As of `Learner`.
    """

    def __init__(
        self,
        network: SalvageNetwork,
        surrogate: MaskableClassifier,
        params: FitParams,
        masks: int,
        sampling: str,
        temperature: float,
        divergence: str,
        seed: int,
        stage: str,
    ) -> None:
        super().__init__(params, seed, stage, surrogate)
        check_masks(masks)
        if sampling not in SAMPLINGS:
            raise UserError(f"sampling={sampling} is unknown: use {', '.join(SAMPLINGS)}")
        if not 0 < temperature < math.inf:
            raise UserError(f"temperature={temperature} must be above 0")
        if divergence not in DIVERGENCES:
            raise UserError(f"divergence={divergence} is unknown: use {' or '.join(DIVERGENCES)}")
        self.network, self._masks, self._sampling = network, masks, sampling
        self._temperature, self._divergence = temperature, divergence

    def loss(self, batch: Batch, step: int) -> Tensor:
        """Equation 5."""
        parts = self.network.parts(batch.pixels)
        coalitions = self._coalitions(parts, batch.labels, step)
        log_v = log_predictions(self._frozen[0], batch.pixels, coalitions)
        return distribution_loss(*parts, coalitions, log_v, self._temperature, self._divergence)

    @torch.no_grad()
    def _coalitions(self, parts: ShapleyParts, labels: Tensor, step: int) -> Tensor:
        """Bool [B, S, M]; one size a slot for all images, so that sequences of one length are computed together."""
        players = parts.present.shape[1]
        common, own = common_and_own(self._seed, step, labels.device, self.global_rank)
        draw_sizes = kernel_sizes if self._sampling == "shapley_kernel" else uniform_sizes
        sizes = draw_sizes(players, self._masks, common)
        # Not to validate: losses over masks that each network chooses for itself do not compare.
        if self._sampling == "informed" and self.training:
            return informed_coalitions(column(parts.present - parts.absent, labels), sizes, own)
        return random_masks(len(labels), players, sizes, own)


def log_predictions(surrogate: MaskableClassifier, images: Tensor, coalitions: Tensor) -> Tensor:
    """Log v(S) of images [B, 3, H, W] and coalitions [B, S, M]: [B, S, C], in float32, a constant to autograd."""
    logits = PatchGame(surrogate, images, output="logit").value(coalitions)
    # Made in inference mode, it could not take part in a backward pass.
    return logits.clone().log_softmax(-1)


def check_masks(masks: int) -> None:
    """Refuse numbers of masks that cannot be halved."""
    if masks < 2 or masks % 2:
        raise UserError(f"masks={masks} must be even and at least 2: half of them show what the other half leaves out")
