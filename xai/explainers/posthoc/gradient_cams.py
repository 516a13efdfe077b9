"""Class activation maps that weigh a layer by its gradients, by pytorch-grad-cam: they differ in how they weigh."""

from typing import Any

from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer

_COST: dict[str, Any] = {"needs": {"features", "gradients"}, "passes": lambda params, patches: 1}


class GradientCam(PatchCam[ExplainerParams]):
    """Explains with one forward pass, and one backward pass that ends at the layer looked at.

    Attributes:
        library: The library's class.
    """

    gradients = True
    library: str

    def method(self) -> type[Any]:
        """The library's class, of the logit."""
        import pytorch_grad_cam

        found: type[Any] = getattr(pytorch_grad_cam, self.library)
        return found


@explainer(
    "grad_cam",
    label="Grad-CAM",
    about="gradients of the logit at the last layer that has patches, as a weighting of it",
    **_COST,
)
class GradCam(GradientCam):
    """Grad-CAM (Selvaraju et al. 2020), equation 1.

    As in "Transferring visual explainability" (Yoshikawa et al.), Appendix D.1, it looks at the layer norm of the last
    residual block, and the pixels of the map are averaged within each patch.
    """

    library = "GradCAM"


@explainer(
    "grad_cam_plusplus",
    label="Grad-CAM++",
    about="positive gradients of the logit at the last layer that has patches, every occurrence alike",
    **_COST,
)
class GradCamPlusPlus(GradientCam):
    """Grad-CAM++ (Chattopadhay et al. 2018), equations 5, 7 and 19: weights for the exponential of the logit.

    They are meant for activations that are not negative; behind a layer norm they are computed all the same.
    """

    library = "GradCAMPlusPlus"


@explainer(
    "layer_cam",
    label="LayerCAM",
    about="the last layer that has patches, each place weighed by its own positive gradient of the logit",
    **_COST,
)
class LayerCam(GradientCam):
    """LayerCAM (Jiang et al. 2021), equations 4 to 6."""

    library = "LayerCAM"


@explainer(
    "hires_cam",
    label="HiResCAM",
    about="the last layer that has patches times its own gradient of the logit, place by place",
    **_COST,
)
class HiResCam(GradientCam):
    """HiResCAM (Draelos and Carin 2020), equation 6.

    Where all that follows the layer is linear, the map adds up to the logit less a bias, before what is negative is cut
    off.
    """

    library = "HiResCAM"


@explainer(
    "xgrad_cam",
    label="XGrad-CAM",
    about="gradients of the logit at the last layer that has patches, averaged by shares of the channel",
    **_COST,
)
class XGradCam(GradientCam):
    """XGrad-CAM (Fu et al. 2020), equations 7 and 8.

    A place's share of its channel means little where a channel has both signs, as behind a layer norm.
    """

    library = "XGradCAM"
