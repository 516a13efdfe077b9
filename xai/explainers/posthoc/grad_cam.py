"""Grad-CAM (Selvaraju et al. 2020) as an explainer, by pytorch-grad-cam.

The supervision of "Transferring visual explainability" (Yoshikawa et al.), Appendix D.1: Grad-CAM at the layer norm of
the last residual block, and the pixels of the map averaged within each patch.
"""

from typing import Any

from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer


@explainer(
    "grad_cam",
    label="Grad-CAM",
    about="gradients of the logit at the last layer that has patches, as a weighting of it",
    needs={"features", "gradients"},
    passes=lambda params, patches: 1,
)
class GradCam(PatchCam[ExplainerParams]):
    """Explains with one forward pass, and one backward pass that ends at the layer looked at."""

    gradients = True

    def method(self) -> type[Any]:
        """Grad-CAM of the logit (equation 1)."""
        from pytorch_grad_cam import GradCAM

        return GradCAM
