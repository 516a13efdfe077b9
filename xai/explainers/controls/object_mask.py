"""The region of the object itself as a map: what a perfect localisation would get."""

import torch

from xai.core.errors import UserError
from xai.explainers.block import Block, Explanation
from xai.explainers.controls.params import ControlParams
from xai.explainers.registry import explainer
from xai.metrics.functional import patch_coverage
from xai.models.maskable import MaskableClassifier


@explainer(
    "object_mask",
    label="Object mask",
    about="the region of the object itself as a map; its RMA and RRA are the most there is",
    params=ControlParams,
    kind="control",
    class_specific=False,
    needs={"regions"},
    passes=lambda params, patches: 0,
)
class ObjectMask:
    """The share of each patch that lies in the region, or for pixels whether it does.

    Args:
        classifier: Whose patch grid the maps are on.
        params: Patches or pixels.
    """

    def __init__(self, classifier: MaskableClassifier, params: ControlParams) -> None:
        self._grid, self._params = classifier.grid, params

    def explain(self, block: Block) -> Explanation:
        """Maps in [0, 1], float32: [B, h, w] or [B, H, W].

        Raises:
            UserError: Where the images have no regions.
        """
        if block.regions is None:
            raise UserError("object_mask needs the regions of the objects: leave it out for images without them")
        if self._params.of_pixels:
            return Explanation(block.regions.float())
        return Explanation(patch_coverage(block.regions, self._grid).to(torch.float32))
