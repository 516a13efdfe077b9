"""The surrogate: a classifier fine-tuned on masked images, so that v(S) is asked of what it was trained on.

Frye et al. 2021; Covert et al. 2023 (ViT-Shapley), section 3; SALVAGE, section 5.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.methods.learner import Learner
from xai.models.maskable import MaskableClassifier
from xai.sampling import common_and_own, random_masks


def surrogate_loss(masked: Tensor, full: Tensor) -> Tensor:
    """KL(f(x) || g(x_S)): what the masked prediction loses of the classifier's on the whole image.

    Args:
        masked: [B, C] logits of the surrogate on masked images.
        full: [B, C] logits of the classifier on whole images.

    Returns:
        The scalar mean over images.
    """
    return F.kl_div(masked.float().log_softmax(1), full.float().log_softmax(1), reduction="batchmean", log_target=True)


class Surrogate(Learner):
    """Fine-tunes a classifier on randomly masked images.

    Args:
        model: The surrogate, at the classifier's parameters; trained in place.
        classifier: The classifier, frozen.
        teacher: `classifier` (its prediction of the whole image, as ViT-Shapley does) or `labels`.
        sizes: Different mask sizes a batch.
        params, seed, stage: As of `Learner`.
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
        super().__init__(params, seed, stage, classifier)
        self.model, self._teacher, self._sizes = model, teacher, sizes

    def loss(self, batch: Batch, step: int) -> Tensor:
        """What masked images lose."""
        keep = self._masks(len(batch.pixels), step).to(self.device)
        masked = self.model(batch.pixels, keep)
        if self._teacher == "labels":
            return F.cross_entropy(masked.float(), batch.labels)
        with torch.no_grad():
            full = self._frozen[0](batch.pixels)
        return surrogate_loss(masked, full)

    def _masks(self, images: int, step: int) -> Tensor:
        """Bool [B, M], of sizes from none to all; a batch has few of them, because each length is a pass of its own."""
        common, own = common_and_own(self._seed, step, torch.device("cpu"), self.global_rank)
        drawn = torch.randint(self.model.players + 1, (self._sizes,), generator=common)
        sizes = drawn[torch.arange(images) % self._sizes]
        return random_masks(images, self.model.players, sizes[:, None], own)[:, 0]
