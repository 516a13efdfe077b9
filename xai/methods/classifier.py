"""Training a vision transformer to classify, from nothing if need be: the network that is to be explained."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.methods.learner import Learner
from xai.models.maskable import MaskableClassifier
from xai.sampling import step_generator


def focused_patches(
    regions: Tensor, grid: tuple[int, int], background: int, generator: torch.Generator | None = None
) -> Tensor:
    """The patches that touch an image's object, and some others at random.

    Args:
        regions: Bool [B, H, W], the object of each image.
        grid: (h, w), patches down and across; they divide H and W.
        background: How many other patches, or all where there are fewer.
        generator: Source of the draw.

    Returns:
        Bool [B, M], True where a patch is shown.
    """
    touched = F.adaptive_max_pool2d(regions[:, None].float(), grid).flatten(1) > 0
    order = torch.rand(touched.shape, generator=generator, device=generator.device if generator else None)
    order = order.to(touched.device).masked_fill(touched, 2.0)
    return touched | (order.argsort(dim=1, stable=True).argsort(1) < background)


def visible_background(step: int, steps: int, focus: float, patches: int) -> int | None:
    """How many background patches a step of the curriculum shows: from none to all over a share `focus` of the steps.

    Returns:
        The number, or None once everything is shown.
    """
    rising = focus * steps
    return None if step >= rising else int(patches * step / rising)


class Classifier(Learner):
    """Cross-entropy; for a binary classifier that is the logistic loss.

    A small ViT that starts from nothing does not find a small object on a large canvas within minutes. Where the
    regions of the objects are known, the first steps leave most of the background out, as tokens that are dropped, and
    add it back bit by bit.

    Args:
        model: The classifier; trained in place.
        focus: Share of the steps over which the background comes back; 0 shows everything from the start.
        params, seed, stage: As of `Learner`.
    """

    def __init__(self, model: MaskableClassifier, params: FitParams, focus: float, seed: int, stage: str) -> None:
        super().__init__(params, seed, stage)
        self.model, self._focus = model, focus

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The cross-entropy."""
        return F.cross_entropy(self.model(batch.pixels, self._shown(batch, step)).float(), batch.labels)

    def _shown(self, batch: Batch, step: int) -> Tensor | None:
        if not (self._focus and self.training):
            return None
        if batch.regions is None:
            raise UserError("focus needs the regions of the objects, and this data set has none: set focus=0")
        steps = int(self.trainer.estimated_stepping_batches)
        background = visible_background(step, steps, self._focus, self.model.players)
        if background is None:
            return None
        generator = step_generator(self._seed, step, batch.pixels.device, self.global_rank)
        return focused_patches(batch.regions, self.model.grid, background, generator)
