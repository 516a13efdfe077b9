"""SALVAGE (Naouar et al. 2025): learning the distribution that a classifier predicts for masked images."""

import torch
from torch import Tensor

from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.games import PatchGame
from xai.methods.learner import Learner
from xai.models.explainer import SalvageNetwork, ShapleyParts, column
from xai.models.maskable import MaskableClassifier
from xai.sampling import common_and_own
from xai.shapley.distribution import distribution_loss
from xai.shapley.masks import draw_masks, is_informed


class Salvage(Learner):
    """Trains phi+ and phi- on the game of the surrogate.

    Args:
        network: The explainer; trained in place.
        surrogate: What answers v(S), frozen.
        masks: Coalitions an image and step; even, of `mixed` sampling a multiple of 4.
        sampling: A `xai.shapley.masks.Sampling`; the paper's is `informed`. No mask is weighed: u(S) shall be
            v(S) wherever one looks, and has no minimiser that hangs on how often it was asked, but for what it cannot
            fit.
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
        divergence: str,
        seed: int,
        stage: str,
    ) -> None:
        super().__init__(params, seed, stage, surrogate)
        self.network, self._masks, self._sampling, self._divergence = network, masks, sampling, divergence

    def loss(self, batch: Batch, step: int) -> Tensor:
        """Equation 5."""
        parts = self.network.parts(batch.pixels)
        coalitions = self._coalitions(parts, batch.labels, step)
        log_v = log_predictions(self._frozen[0], batch.pixels, coalitions)
        return distribution_loss(*parts, coalitions, log_v, self.network.temperature, self._divergence)

    @torch.no_grad()
    def _coalitions(self, parts: ShapleyParts, labels: Tensor, step: int) -> Tensor:
        """Bool [B, S, M]; one size a slot for all images, so that sequences of one length are computed together."""
        common, own = common_and_own(self._seed, step, labels.device, self.global_rank)
        phi = column(parts.present - parts.absent, labels)
        # Not to validate: losses over masks that each network chooses for itself do not compare.
        chosen = self.training or not is_informed(self._sampling)
        return draw_masks(self._sampling if chosen else "uniform", phi, self._masks, common, own)


def log_predictions(surrogate: MaskableClassifier, images: Tensor, coalitions: Tensor) -> Tensor:
    """Log v(S) of images [B, 3, H, W] and coalitions [B, S, M]: [B, S, C], in float32, a constant to autograd."""
    logits = PatchGame(surrogate, images, output="logit").value(coalitions)
    # Made in inference mode, it could not take part in a backward pass.
    return logits.clone().log_softmax(-1)
