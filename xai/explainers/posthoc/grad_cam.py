"""Grad-CAM (Selvaraju et al. 2020) as an explainer, by pytorch-grad-cam.

The supervision of "Transferring visual explainability" (Yoshikawa et al.), Appendix D.1: Grad-CAM at the layer norm of
the last residual block, and the pixels of the map averaged within each patch.
"""

import torch
from torch import Tensor

from xai.core.settings import settings
from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.maskable import MaskableClassifier


@settings
class GradCamParams(ExplainerParams):
    """Grad-CAM leaves nothing to be set: it explains the logit (equation 1), at the layer its classifier names."""


@explainer(
    "grad_cam",
    label="Grad-CAM",
    about="gradients of the logit at the last layer that has patches, as a weighting of it",
    params=GradCamParams,
    needs={"features", "gradients"},
    passes=lambda params, patches: 1,
)
class GradCam:
    """Explains with one forward pass, and one backward pass that ends at the layer looked at.

    Args:
        classifier: The classifier to explain, on its device; see `PatchCam`.
        params: No settings.

    Raises:
        UserError: Where the layer to look at is not known for this family of classifiers.
    """

    def __init__(self, classifier: MaskableClassifier, params: GradCamParams) -> None:
        self._cam = PatchCam(classifier)

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Grad-CAM averaged within patches, [B, h, w] in [0, 1], of images [B, 3, H, W] for the classes `targets` [B].

        Raises:
            ValueError: Where there is not one target for each of one or more images.
        """
        from pytorch_grad_cam import GradCAM

        return self._cam.maps(GradCAM, images, targets, gradients=True)
