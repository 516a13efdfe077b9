"""Eigen-CAM (Muhammad and Yeasin 2020) as an explainer, by pytorch-grad-cam."""

from typing import Any, Literal

import numpy as np

from xai.core.settings import settings
from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer


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
class EigenCam(PatchCam[EigenCamParams]):
    """Explains with one forward pass: where the activations differ most from their mean over the patches.

    Neither the class nor any gradient takes part. As in the library, and unlike in the paper, the activations of an
    image are centred before they are decomposed: what is projected are deviations, of both signs.
    """

    def method(self) -> type[Any]:
        """Eigen-CAM with the sign that the settings say."""
        from pytorch_grad_cam import EigenCAM

        return EigenCAM if self.params.sign == "library" else _with_largest_positive(EigenCAM)


def _with_largest_positive(method: type[Any]) -> type[Any]:
    """A class of the library whose maps are turned so that what is largest in magnitude is positive."""

    class Turned(method):
        def get_cam_image(self, *given: Any, **named: Any) -> Any:
            maps = super().get_cam_image(*given, **named)
            turned = -maps.min((1, 2), keepdims=True) > maps.max((1, 2), keepdims=True)
            return np.where(turned, -maps, maps)

    return Turned
