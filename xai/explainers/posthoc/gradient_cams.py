"""Class activation maps that weigh a layer by its gradients, by pytorch-grad-cam: they differ in how they weigh."""

from typing import Any

from xai.explainers.posthoc.cams import PatchCam
from xai.explainers.registry import ExplainerParams, explainer

_LAYER = "the last layer that has patches"


class GradientCam(PatchCam[ExplainerParams]):
    """Explains with one forward pass, and one backward pass that ends at the layer looked at.

    As in "Transferring visual explainability" (Yoshikawa et al.), Appendix D.1, that is the layer norm of the last
    residual block, and the pixels of the map are averaged within each patch.

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


for _name, _label, _library, _about in (
    # Selvaraju et al. 2020, equation 1.
    ("grad_cam", "Grad-CAM", "GradCAM", f"gradients of the logit at {_LAYER}, as a weighting of it"),
    # Chattopadhay et al. 2018, equations 5, 7 and 19: weights for the exponential of the logit, meant for activations
    # that are not negative; behind a layer norm they are computed all the same.
    (
        "grad_cam_plusplus",
        "Grad-CAM++",
        "GradCAMPlusPlus",
        f"positive gradients of the logit at {_LAYER}, every occurrence alike",
    ),
    # Jiang et al. 2021, equations 4 to 6.
    ("layer_cam", "LayerCAM", "LayerCAM", f"{_LAYER}, each place weighed by its own positive gradient of the logit"),
    # Draelos and Carin 2020, equation 6. Where all that follows the layer is linear, the map adds up to the logit less
    # a bias, before what is negative is cut off.
    ("hires_cam", "HiResCAM", "HiResCAM", f"{_LAYER} times its own gradient of the logit, place by place"),
    # Fu et al. 2020, equations 7 and 8. A place's share of its channel means little where a channel has both signs, as
    # behind a layer norm.
    ("xgrad_cam", "XGrad-CAM", "XGradCAM", f"gradients of the logit at {_LAYER}, averaged by shares of the channel"),
):
    explainer(_name, label=_label, about=_about, needs={"features", "gradients"}, passes=lambda params, patches: 1)(
        type(_library, (GradientCam,), {"library": _library, "__module__": __name__})
    )
