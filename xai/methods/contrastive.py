"""Contrastive pre-training of the embedded CLIP on scattered glyphs with captions: its base parameters theta_base."""

import torch.nn.functional as F
from open_clip.model import CLIP
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from xai.core.optimisation import FitParams
from xai.data.captions import CaptionedGlyphs
from xai.methods.learner import adamw
from xai.models import packed
from xai.models.maskable import Normalisation, Removal


def contrastive_loss(similarity: Tensor, owner: Tensor) -> Tensor:
    """Symmetric contrastive loss where several images of a batch may share one caption.

    Image to text is a cross-entropy over captions. Text to image spreads each caption's target evenly over its images,
    as in supervised contrastive learning; with one image a caption it is the loss of CLIP (Radford et al. 2021).

    Args:
        similarity: [B, T] scaled cosines between B images and T distinct captions, each owned by at least one image.
        owner: [B] the caption of each image.

    Returns:
        The scalar loss.
    """
    image_to_text = F.cross_entropy(similarity, owner)
    targets = F.one_hot(owner, similarity.shape[1]).to(similarity.dtype)
    targets = targets / targets.sum(0, keepdim=True)
    text_to_image = -(targets * similarity.log_softmax(0)).sum(0).mean()
    return (image_to_text + text_to_image) / 2


class ContrastivePretraining(LightningModule):
    """Trains both towers of a small CLIP.

    A ViT that must find a small object on a large canvas does not leave chance level within minutes. So the tower first
    sees only the patches around the object and one other, and all patches in the last steps.

    Args:
        clip: The model, freshly initialised.
        params: The optimisation.
        focused_steps: How many steps see only the kept patches.
        mean: Channel means of the input normalisation.
        std: Channel deviations of it.
    """

    def __init__(self, clip: CLIP, params: FitParams, focused_steps: int, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.clip = clip
        self._params, self._focused_steps = params, focused_steps
        self._normalisation = Normalisation(mean, std, Removal())

    def training_step(self, batch: CaptionedGlyphs, batch_index: int) -> Tensor:
        """One step of the contrastive loss."""
        visual = self.clip.visual
        tokens = visual._embeds(self._normalisation(batch.pixels))
        if self.global_step < self._focused_steps:
            index = F.pad(batch.focus + 1, (1, 0))
            tokens = tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
        image = visual.ln_post(packed.class_tokens(packed.layers(visual.transformer.resblocks), tokens)) @ visual.proj
        text = self.clip.encode_text(batch.captions, normalize=True)
        similarity = self.clip.logit_scale.exp() * F.normalize(image, dim=-1) @ text.T
        loss = contrastive_loss(similarity, batch.owner)
        self.log("base/loss", loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and cosine."""
        return adamw(self, self._params)
