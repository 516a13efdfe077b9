"""ViT-Shapley (Covert et al. 2023): learning Shapley values by the weighted least squares that characterises them."""

import torch
from torch import Tensor

from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.methods.learner import Learner
from xai.methods.salvage import check_masks, log_predictions
from xai.models.explainer import ShapleyNetwork
from xai.models.maskable import MaskableClassifier
from xai.models.unet import FastShapNetwork
from xai.sampling import common_and_own
from xai.shapley.masks import paired_masks


def efficient(values: Tensor, grand: Tensor, null: Tensor) -> Tensor:
    """Additive efficient normalisation (Ruiz et al. 1998; FastSHAP, equation 5): the same number added to every patch.

    Args:
        values: [B, M, C], or [B, M] of one class.
        grand: [B, C], or [B]: v(N), the prediction for the whole image.
        null: [B, C], or [B]: v of no patch at all.

    Returns:
        Values of the same shape that add up to v(N) - v(no patch).
    """
    gap = grand - null - values.sum(1)
    return values + gap[:, None] / values.shape[1]


def fast_shap_loss(values: Tensor, coalitions: Tensor, answers: Tensor, null: Tensor) -> Tensor:
    """Equation 2 of SALVAGE, the FastSHAP objective: (v(S) - v(no patch) - sum of phi over S) squared.

    Averaged over images, coalitions and classes, times M as the authors of ViT-Shapley scale it.

    Args:
        values: [B, M, C] normalised Shapley values.
        coalitions: Bool [B, S, M], drawn from the Shapley kernel.
        answers: [B, S, C] v(S), probabilities.
        null: [B, C] v of no patch at all.

    Returns:
        The scalar loss.
    """
    # Not under autocast: in half precision the sum over patches loses its digits.
    with torch.autocast(values.device.type, enabled=False):
        predicted = null[:, None] + torch.bmm(coalitions.to(values.dtype), values)
    return values.shape[1] * (predicted - answers).square().mean()


class VitShapley(Learner):
    """Trains phi on the game of the surrogate, with paired masks from the Shapley kernel.

    Args:
        network: The explainer, of a transformer or of a CNN (FastSHAP, whose loss it is); trained in place.
        surrogate: What answers v(S), frozen.
        masks: Coalitions an image and step; even, for they come with their complements.
        params, seed, stage: As of `Learner`.
    """

    def __init__(
        self,
        network: ShapleyNetwork | FastShapNetwork,
        surrogate: MaskableClassifier,
        params: FitParams,
        masks: int,
        seed: int,
        stage: str,
    ) -> None:
        super().__init__(params, seed, stage, surrogate)
        check_masks(masks)
        self.network, self._masks = network, masks

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The FastSHAP objective, on normalised values."""
        players = self._frozen[0].players
        common, own = common_and_own(self._seed, step, batch.pixels.device, self.global_rank)
        coalitions = paired_masks(len(batch.pixels), players, self._masks // 2, common, own)
        answers, grand, null = predictions_with_ends(self._frozen[0], batch.pixels, coalitions)
        values = efficient(self.network.values(batch.pixels), grand, null)
        return fast_shap_loss(values, coalitions, answers, null)


def predictions_with_ends(
    surrogate: MaskableClassifier, images: Tensor, coalitions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """v(S) [B, S, C] of coalitions [B, S, M], v(N) [B, C] and v(no patch) [B, C], all in one pass of the game."""
    ends = torch.ones(len(images), 2, coalitions.shape[2], dtype=torch.bool, device=coalitions.device)
    ends[:, 1] = False
    answers = log_predictions(surrogate, images, torch.cat([coalitions, ends], dim=1)).exp()
    return answers[:, :-2], answers[:, -2], answers[:, -1]
