"""Learning to classify and to explain at once: equations 4 and 5 of Yoshikawa et al."""

import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.methods.learner import adamw
from xai.metrics.functional import squared_explanation_error
from xai.models.clip import SelfExplainingClip
from xai.models.explainer import column


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """L_cls of equation 4: the cross-entropy between logits [B, C] and labels [B]."""
    return F.cross_entropy(logits, labels)


def explanation_loss(attributions: Tensor, labels: Tensor, reference: Tensor) -> Tensor:
    """L_exp, equation 5: the squared distance between normalised maps, of the column of the true class.

    Equation 5 sums the squares over patches. The paper's E-RMSE is sqrt(L_exp) and lies near sqrt(2) for uncorrelated
    maps, whatever M is: so the published numbers, and this loss, take the mean over patches.

    Args:
        attributions: [B, M, C], the paper's Phi-tilde.
        labels: [B] true classes y.
        reference: [B, M], the supervision phi.

    Returns:
        The scalar loss.
    """
    return squared_explanation_error(column(attributions, labels), reference).mean()


def combined_loss(classification: Tensor, explanation: Tensor, alpha: float) -> Tensor:
    """L_alpha, equation 4: alpha L_cls + (1 - alpha) L_exp."""
    return alpha * classification + (1 - alpha) * explanation


def check_alpha(alpha: float) -> None:
    """Refuse an alpha outside of [0, 1]."""
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha={alpha} must be between 0 (explanation only) and 1 (classification only)")


class SelfExplainer(LightningModule):
    """Fine-tunes theta, the visual tower, from the base parameters.

    With alpha = 1 it gives theta_ft, the prediction-only classifier; below 1 theta_ft*, which explains itself.

    Args:
        model: The classifier, at theta_base.
        params: The optimisation.
        alpha: The balance of equation 4.
        stage: Prefix of the logged names.
    """

    def __init__(self, model: SelfExplainingClip, params: FitParams, alpha: float, stage: str) -> None:
        super().__init__()
        check_alpha(alpha)
        self.model = model
        self._params, self._alpha, self._stage = params, alpha, stage

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step of L_alpha."""
        if self._alpha == 1:
            loss = classification_loss(self.model(batch.pixels), batch.labels)
        else:
            if batch.attributions is None:
                raise UserError(f"alpha={self._alpha} needs explanation supervision, and these images have none")
            logits, attributions = self.model.explain(batch.pixels)
            classification = classification_loss(logits, batch.labels)
            explanation = explanation_loss(attributions, batch.labels, batch.attributions)
            if batch.other is not None:
                # Not in the paper: ours.
                explanation = (explanation + explanation_loss(attributions, *batch.other)) / 2
            loss = combined_loss(classification, explanation, self._alpha)
            self.log_dict({f"{self._stage}/classification": classification, f"{self._stage}/explanation": explanation})
        self.log(f"{self._stage}/loss", loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and cosine."""
        return adamw(self, self._params)
