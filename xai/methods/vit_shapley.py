"""ViT-Shapley (Covert et al. 2023): learning Shapley values by the weighted least squares that characterises them."""

import torch
from torch import Tensor

from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.methods.learner import Learner
from xai.methods.salvage import log_predictions
from xai.models.explainer import ShapleyNetwork, column
from xai.models.maskable import MaskableClassifier
from xai.models.unet import FastShapNetwork
from xai.sampling import common_and_own
from xai.shapley.masks import draw_masks, is_informed, weights_of


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


def fast_shap_loss(
    values: Tensor, coalitions: Tensor, answers: Tensor, null: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Equation 2 of SALVAGE, the FastSHAP objective: (v(S) - v(no patch) - sum of phi over S) squared.

    Averaged over images, coalitions and classes, times M as the authors of ViT-Shapley scale it. Its minimiser is the
    Shapley value where coalitions count as in the Shapley kernel p: drawn from it, or drawn from another q and weighed
    by p(S) / q(S). Without these weights it is another additive game, the nearest where q looks most often.

    Args:
        values: [B, M, C] normalised Shapley values.
        coalitions: Bool [B, S, M].
        answers: [B, S, C] v(S), probabilities.
        null: [B, C] v of no patch at all.
        weights: [B, S] of the squares; None where coalitions are drawn from the Shapley kernel.

    Returns:
        The scalar loss.
    """
    # Not under autocast: in half precision the sum over patches loses its digits.
    with torch.autocast(values.device.type, enabled=False):
        predicted = null[:, None] + torch.bmm(coalitions.to(values.dtype), values)
    squares = (predicted - answers).square()
    if weights is not None:
        squares = weights[:, :, None] * squares
    return values.shape[1] * squares.mean()


class VitShapley(Learner):
    """Trains phi on the game of the surrogate, with paired masks from the Shapley kernel unless told otherwise.

    Args:
        network: The explainer, of a transformer or of a CNN (FastSHAP, whose loss it is); trained in place.
        surrogate: What answers v(S), frozen.
        masks: Coalitions an image and step; even, for they come with their complements.
        params, seed, stage: As of `Learner`.
        sampling: A `xai.shapley.masks.Sampling`; of the kernel are `paired` and `shapley_kernel`.
        weighted: Whether `informed` and `mixed` masks are weighed back to the Shapley kernel. If not, what is learned
            is no Shapley value (see `fast_shap_loss`).
    """

    def __init__(
        self,
        network: ShapleyNetwork | FastShapNetwork,
        surrogate: MaskableClassifier,
        params: FitParams,
        masks: int,
        seed: int,
        stage: str,
        sampling: str = "paired",
        weighted: bool = True,
    ) -> None:
        super().__init__(params, seed, stage, surrogate)
        self.network, self._masks, self._sampling, self._weighted = network, masks, sampling, weighted

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The FastSHAP objective, on normalised values."""
        raw = self.network.values(batch.pixels)
        common, own = common_and_own(self._seed, step, batch.pixels.device, self.global_rank)
        # What is added to all patches alike changes no draw, so that the values need not be normalised yet.
        phi = column(raw.detach(), batch.labels)
        # Not to validate: losses over masks that each network chooses for itself do not compare.
        sampling = self._sampling if self.training or not is_informed(self._sampling) else "paired"
        coalitions = draw_masks(sampling, phi, self._masks, common, own)
        answers, grand, null = predictions_with_ends(self._frozen[0], batch.pixels, coalitions)
        weights = weights_of(sampling, phi, coalitions) if self._weighted else None
        return fast_shap_loss(efficient(raw, grand, null), coalitions, answers, null, weights)


def predictions_with_ends(
    surrogate: MaskableClassifier, images: Tensor, coalitions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """v(S) [B, S, C] of coalitions [B, S, M], v(N) [B, C] and v(no patch) [B, C], all in one pass of the game."""
    ends = torch.ones(len(images), 2, coalitions.shape[2], dtype=torch.bool, device=coalitions.device)
    ends[:, 1] = False
    answers = log_predictions(surrogate, images, torch.cat([coalitions, ends], dim=1)).exp()
    return answers[:, :-2], answers[:, -2], answers[:, -1]
