"""Class activation maps by pytorch-grad-cam, run on a classifier, their pixels averaged in patches."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai.core.settings import settings
from xai.explainers.block import OfClassifier, check_targets
from xai.explainers.posthoc.cam_targets import cam_target
from xai.explainers.posthoc.gradients import Frozen
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.maskable import MaskableClassifier

P = TypeVar("P")


class PatchCam(OfClassifier[P]):
    """Class activation maps of a classifier, on its patch grid.

    A map is made as the library makes it: the positive part of what the method computes at the layer, stretched to
    [0, 1] (a map without variation is 0 everywhere), up-scaled bilinearly to the pixels, stretched again; the pixels
    are then averaged within each patch. So maps of different images are not on one scale, and evidence against a class
    is not told from no evidence.

    Attributes:
        gradients: Whether the method asks for them; the backward pass ends at the layer looked at.

    Raises:
        UserError: Where the layer to look at is not known for this family of classifiers.
    """

    gradients = False

    def __init__(self, classifier: MaskableClassifier, params: P) -> None:
        super().__init__(classifier, params)
        self._target = cam_target(classifier)

    def method(self) -> Callable[..., Any]:
        """A class of the library, of (network, layers, how their outputs lie on the grid)."""
        raise NotImplementedError

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w] in [0, 1], float32, of images [B, 3, H, W] for the classes `targets` [B].

        Raises:
            UserError: Where a network that is not of a known family turns out to have no layer to look at.
            ValueError: Where there is not one target for each of one or more images.
        """
        check_targets(images, targets)
        network, layer, _ = self._target
        with torch.inference_mode(False), torch.set_grad_enabled(self.gradients):
            # What was made in inference mode cannot take part in a graph.
            images, targets = images.detach().clone(), targets.clone()
            frozen = Frozen(network, images.device)
            if not isinstance(layer, nn.Module):
                layer = layer(frozen, images[:1])
            pixels = self.pixels(frozen, layer, images, targets)
        return F.adaptive_avg_pool2d(pixels, self.classifier.grid).to(images.device)

    def cells(self, output: Tensor) -> Tensor:
        """What the layer returned, laid out on the grid as [B, D, h, w]; it shares its memory."""
        return self._target.to_grid(output)

    def pixels(self, network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """Maps [B, H, W] in [0, 1], float32: here as the library's class of `method` makes them.

        Args:
            network: Images [B, 3, H, W] in [0, 1] to logits [B, C], its parameters no part of any graph.
            layer: Where to look.
            images: [B, 3, H, W].
            targets: [B].
        """
        # Here, because it imports plotting and learning libraries that no other explainer waits for.
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        def copied(output: Tensor) -> Tensor:
            # A copy, because some networks go on in place, and on a processor the library would look at what they
            # make; in float32, because the library goes through NumPy, which has no bfloat16.
            return self.cells(output).to(torch.float32, copy=True)

        with layer.register_forward_hook(_start_gradients):
            cam = self.method()(network, [layer], copied)
            try:
                pixels = cam(images, [ClassifierOutputTarget(target) for target in targets.tolist()])
            finally:
                # What the library's `with` does too; but that one prints an IndexError and carries on.
                cam.activations_and_grads.release()
        return torch.from_numpy(pixels)


def stretch(maps: Tensor) -> Tensor:
    """Maps [..., h, w] to [0, 1], each by itself; one without variation is 0, as in the library."""
    maps = maps - maps.amin((-2, -1), keepdim=True)
    return maps / (1e-7 + maps.amax((-2, -1), keepdim=True))


def _start_gradients(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Let the output of a layer be where gradients are wanted: what comes before it needs no graph."""
    # A copy, because some networks rectify this output in place, and the library looks at it afterwards.
    return output.requires_grad_().clone()


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
    """Eigen-CAM (Muhammad and Yeasin 2020).

    Explains with one forward pass: where the activations differ most from their mean over the patches.

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

        return getattr(pytorch_grad_cam, self.library)


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
