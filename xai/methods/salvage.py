"""SALVAGE (Naouar et al. 2025): learning the distribution that a classifier predicts for masked images."""

import math

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from xai.core.errors import UserError
from xai.core.optimisation import FitParams, adamw
from xai.data.module import Batch
from xai.games import PatchGame
from xai.models.explainer import SalvageNetwork, ShapleyParts, column
from xai.models.maskable import MaskableClassifier
from xai.sampling import common_and_own
from xai.shapley.distribution import DIVERGENCES, distribution_loss
from xai.shapley.informed import informed_coalitions, uniform_sizes
from xai.shapley.masks import kernel_sizes, random_masks

SAMPLINGS = ("informed", "shapley_kernel", "uniform")


class Salvage(LightningModule):
    """Trains phi+ and phi- on the game of the surrogate.

    Args:
        network: The explainer; trained in place.
        surrogate: What answers v(S), frozen.
        params: The optimisation.
        masks: Coalitions an image and step; even.
        sampling: `informed` (Algorithm 3, by the explainer's own attributions of the true class), `uniform` (the same
            sizes, patches at random) or `shapley_kernel` (p_w of equation 2, patches at random).
        temperature: Of equation 4.
        divergence: What brings u(S) to v(S): `jensen_shannon`, equation 5, or `kullback_leibler`.
        seed: Of the coalitions.
        stage: Prefix of the logged names.
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
        super().__init__()
        check_masks(masks)
        if sampling not in SAMPLINGS:
            raise UserError(f"sampling={sampling} is unknown: use {', '.join(SAMPLINGS)}")
        if not 0 < temperature < math.inf:
            raise UserError(f"temperature={temperature} must be above 0")
        if divergence not in DIVERGENCES:
            raise UserError(f"divergence={divergence} is unknown: use {' or '.join(DIVERGENCES)}")
        self.network = network
        # In a list, so that Lightning neither trains it, nor writes it into every checkpoint.
        self._surrogate = [surrogate]
        self._params, self._masks, self._sampling = params, masks, sampling
        self._temperature, self._divergence = temperature, divergence
        self._seed, self._stage = seed, stage

    def on_fit_start(self) -> None:
        """Bring the frozen surrogate to the device of the training."""
        self._surrogate[0].to(self.device)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step of equation 5."""
        parts = self.network.parts(batch.pixels)
        coalitions = self._coalitions(parts, batch.labels)
        log_v = log_predictions(self._surrogate[0], batch.pixels, coalitions)
        loss = distribution_loss(*parts, coalitions, log_v, self._temperature, self._divergence)
        self.log(f"{self._stage}/loss", loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and cosine."""
        return adamw(self, self._params)

    @torch.no_grad()
    def _coalitions(self, parts: ShapleyParts, labels: Tensor) -> Tensor:
        """Bool [B, S, M]; one size a slot for all images, so that sequences of one length are computed together."""
        players = parts.present.shape[1]
        common, own = common_and_own(self._seed, self.global_step, labels.device, self.global_rank)
        draw_sizes = kernel_sizes if self._sampling == "shapley_kernel" else uniform_sizes
        sizes = draw_sizes(players, self._masks, common)
        if self._sampling == "informed":
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
