"""The surrogate: a classifier fine-tuned on masked images, so that v(S) is asked of what it was trained on.

Frye et al. 2021; Covert et al. 2023 (ViT-Shapley), section 3; SALVAGE, section 5.1.
"""

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from xai.core.errors import UserError
from xai.core.optimisation import FitParams, adamw
from xai.data.module import Batch
from xai.models.maskable import MaskableClassifier
from xai.sampling import common_and_own
from xai.shapley.masks import random_masks

TEACHERS = ("classifier", "labels")


def surrogate_loss(masked: Tensor, full: Tensor) -> Tensor:
    """KL(f(x) || g(x_S)): what the masked prediction loses of the classifier's on the whole image.

    Args:
        masked: [B, C] logits of the surrogate on masked images.
        full: [B, C] logits of the classifier on whole images.

    Returns:
        The scalar mean over images.
    """
    return F.kl_div(masked.float().log_softmax(1), full.float().log_softmax(1), reduction="batchmean", log_target=True)


class Surrogate(LightningModule):
    """Fine-tunes a classifier on randomly masked images.

    Args:
        model: The surrogate, at the classifier's parameters; trained in place.
        classifier: The classifier, frozen.
        params: The optimisation.
        teacher: `classifier` (its prediction of the whole image, as ViT-Shapley does) or `labels`.
        sizes: Different mask sizes a batch.
        seed: Of the masks.
        stage: Prefix of the logged names.
    """

    def __init__(
        self,
        model: MaskableClassifier,
        classifier: MaskableClassifier,
        params: FitParams,
        teacher: str,
        sizes: int,
        seed: int,
        stage: str,
    ) -> None:
        super().__init__()
        if teacher not in TEACHERS:
            raise UserError(f"surrogate.teacher={teacher} is unknown: use {' or '.join(TEACHERS)}")
        self.model = model
        # In a list, so that Lightning neither trains it, nor writes it into every checkpoint.
        self._classifier = [classifier]
        self._params, self._teacher, self._sizes, self._seed, self._stage = params, teacher, sizes, seed, stage

    def on_fit_start(self) -> None:
        """Bring the frozen classifier to the device of the training."""
        self._classifier[0].to(self.device)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step on masked images."""
        keep = self._masks(len(batch.pixels)).to(self.device)
        masked = self.model(batch.pixels, keep)
        if self._teacher == "labels":
            loss = F.cross_entropy(masked.float(), batch.labels)
        else:
            with torch.no_grad():
                full = self._classifier[0](batch.pixels)
            loss = surrogate_loss(masked, full)
        self.log(f"{self._stage}/loss", loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and cosine."""
        return adamw(self, self._params)

    def _masks(self, images: int) -> Tensor:
        """Bool [B, M], of sizes from none to all; a batch has few of them, because each length is a pass of its own."""
        common, own = common_and_own(self._seed, self.global_step, torch.device("cpu"), self.global_rank)
        drawn = torch.randint(self.model.players + 1, (self._sizes,), generator=common)
        sizes = drawn[torch.arange(images) % self._sizes]
        return random_masks(images, self.model.players, sizes[:, None], own)[:, 0]
