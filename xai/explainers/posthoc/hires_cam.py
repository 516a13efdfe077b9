"""HiResCAM (Draelos and Carin 2020) as an explainer, by pytorch-grad-cam."""

from typing import Any

from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer


@explainer(
    "hires_cam",
    label="HiResCAM",
    about="the last layer that has patches times its own gradient of the logit, place by place",
    needs={"features", "gradients"},
    passes=lambda params, patches: 1,
)
class HiResCam(PatchCam[ExplainerParams]):
    """Explains with one forward pass, and one backward pass that ends at the layer looked at.

    Where all that follows the layer is linear, the map adds up to the logit less a bias, before what is negative is cut
    off.
    """

    gradients = True

    def method(self) -> type[Any]:
        """HiResCAM of the logit (equation 6)."""
        from pytorch_grad_cam import HiResCAM

        return HiResCAM
