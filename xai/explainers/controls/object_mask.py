"""The region of the object itself as a map: what a perfect localisation would get."""

import torch

from xai.core.errors import UserError
from xai.explainers.block import Block, Explanation, OfClassifier
from xai.explainers.params import MapParams
from xai.explainers.registry import explainer
from xai.metrics.functional import patch_coverage


@explainer(
    "object_mask",
    label="Object mask",
    about="the region of the object itself as a map; its RMA and RRA are the most there is",
    params=MapParams,
    kind="control",
    class_specific=False,
    needs={"regions"},
    passes=lambda params, patches: 0,
)
class ObjectMask(OfClassifier[MapParams]):
    """The share of each patch that lies in the region, or for pixels whether it does."""

    def explain(self, block: Block) -> Explanation:
        """Maps in [0, 1], float32: [B, h, w] or [B, H, W].

        Raises:
            UserError: Where the images have no regions.
        """
        if block.regions is None:
            raise UserError("object_mask needs the regions of the objects: leave it out for images without them")
        if self.params.of_pixels:
            return Explanation(block.regions.float())
        return Explanation(patch_coverage(block.regions, self.classifier.grid).to(torch.float32))
