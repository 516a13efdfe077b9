"""XGrad-CAM (Fu et al. 2020) as an explainer, by pytorch-grad-cam."""

from typing import Any

from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer


@explainer(
    "xgrad_cam",
    label="XGrad-CAM",
    about="gradients of the logit at the last layer that has patches, averaged by shares of the channel",
    needs={"features", "gradients"},
    passes=lambda params, patches: 1,
)
class XGradCam(PatchCam[ExplainerParams]):
    """Explains with one forward pass, and one backward pass that ends at the layer looked at.

    A place's share of its channel means little where a channel has both signs, as behind a layer norm.
    """

    gradients = True

    def method(self) -> type[Any]:
        """XGrad-CAM of the logit (equations 7 and 8)."""
        from pytorch_grad_cam import XGradCAM

        return XGradCAM
