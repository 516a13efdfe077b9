"""Eigen-CAM (Muhammad and Yeasin 2020) as an explainer, by pytorch-grad-cam."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from xai.core.settings import settings
from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.maskable import MaskableClassifier


@settings
class EigenCamParams(ExplainerParams):
    """What is left open by a principal component, whose negative is one as well.

    Args:
        sign: `largest` makes the projection of largest magnitude positive, image by image (Seg-Eigen-CAM, Chung and
            Ying 2025, equation 13); `library` takes what pytorch-grad-cam's decomposition happens to return.
    """

    sign: Literal["largest", "library"] = "largest"


@explainer(
    "eigen_cam",
    label="Eigen-CAM",
    about="first principal component of the last layer that has patches",
    params=EigenCamParams,
    class_specific=False,
    needs={"features"},
    passes=lambda params, patches: 1,
)
class EigenCam:
    """Explains with one forward pass: where the activations differ most from their mean over the patches.

    Neither the class nor any gradient takes part. As in the library, and unlike in the paper, the activations of an
    image are centred before they are decomposed: what is projected are deviations, of both signs.

    Args:
        classifier: The classifier to explain, on its device; see `PatchCam`.
        params: The sign of the component.

    Raises:
        UserError: Where the layer to look at is not known for this family of classifiers.
    """

    def __init__(self, classifier: MaskableClassifier, params: EigenCamParams) -> None:
        self._cam, self._params = PatchCam(classifier), params

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Eigen-CAM averaged within patches, [B, h, w] in [0, 1], of images [B, 3, H, W]; `targets` [B] are unused.

        Raises:
            ValueError: Where there is not one target for each of one or more images.
        """
        from pytorch_grad_cam import EigenCAM

        method = EigenCAM if self._params.sign == "library" else _with_largest_positive(EigenCAM)
        return self._cam.maps(method, images, targets, gradients=False)


def _with_largest_positive(method: type[Any]) -> type[Any]:
    """A class of the library whose maps are turned so that what is largest in magnitude is positive."""

    class Turned(method):
        def get_cam_image(self, *given: Any, **named: Any) -> Any:
            maps = super().get_cam_image(*given, **named)
            turned = -maps.min((1, 2), keepdims=True) > maps.max((1, 2), keepdims=True)
            return np.where(turned, -maps, maps)

    return Turned
