"""Grad-CAM++ (Chattopadhay et al. 2018) as an explainer, by pytorch-grad-cam."""

from typing import Any

from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer


@explainer(
    "grad_cam_plusplus",
    label="Grad-CAM++",
    about="positive gradients of the logit at the last layer that has patches, every occurrence alike",
    needs={"features", "gradients"},
    passes=lambda params, patches: 1,
)
class GradCamPlusPlus(PatchCam[ExplainerParams]):
    """Explains with one forward pass, and one backward pass that ends at the layer looked at.

    The weights of the gradients are closed forms for the exponential of the logit (equation 19). They are meant for
    activations that are not negative; behind a layer norm they are computed all the same.
    """

    gradients = True

    def method(self) -> type[Any]:
        """Grad-CAM++ of the logit (equations 5, 7 and 19)."""
        from pytorch_grad_cam import GradCAMPlusPlus

        return GradCAMPlusPlus
