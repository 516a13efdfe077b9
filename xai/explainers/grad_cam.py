"""Grad-CAM (Selvaraju et al. 2020) as an explainer, by pytorch-grad-cam.

The supervision of "Transferring visual explainability" (Yoshikawa et al.), Appendix D.1: Grad-CAM at the layer norm of
the last residual block, and the pixels of the map averaged within each patch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from xai.explainers.cam_targets import cam_target
from xai.explainers.registry import ExplainerParams, register
from xai.models.maskable import MaskableClassifier


@dataclass(frozen=True)
class GradCamParams(ExplainerParams):
    """Grad-CAM leaves nothing to be set: it explains the logit (equation 1), at the layer its classifier names."""


@register("grad_cam", "gradients of the logit at the last layer that has patches, as a weighting of it", GradCamParams)
class GradCamExplainer:
    """Explains with one forward pass, and one backward pass that ends at the layer looked at.

    A map is made as the library makes it: the positive part of the weighted activations, stretched to [0, 1] (a map
    without variation is 0 everywhere), up-scaled bilinearly to the pixels, stretched again. So maps of different images
    are not on one scale, and evidence against a class is not told from no evidence.

    Args:
        classifier: The classifier to explain, on its device. Its parameters may or may not require gradients; neither
            that, nor the gradients they hold, nor the mode of the classifier is changed.
        params: No settings.
        generator: Unused, the method draws nothing.

    Raises:
        UserError: Where the layer to look at is not known for this family of classifiers.
    """

    def __init__(self, classifier: MaskableClassifier, params: GradCamParams, generator: torch.Generator) -> None:
        self._grid, self._target = classifier.grid, cam_target(classifier)

    def attribute(self, images: Tensor, targets: Tensor) -> Tensor:
        """Grad-CAM averaged within patches, [B, h, w] in [0, 1], of images [B, 3, H, W] for the classes `targets` [B].

        Raises:
            ValueError: Where there is not one target for each of one or more images.
        """
        if not len(images) or targets.shape != (len(images),):
            raise ValueError(
                f"images are {list(images.shape)} and targets {list(targets.shape)}: Grad-CAM needs one class an image"
            )
        # Here, because it imports plotting and learning libraries that no other explainer waits for.
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        network, layer, to_grid = self._target
        with torch.inference_mode(False), torch.enable_grad(), layer.register_forward_hook(_start_gradients):
            # In float32: the library goes through NumPy, which has no bfloat16.
            cam = GradCAM(_Frozen(network, images.device), [layer], lambda tokens: to_grid(tokens).float())
            try:
                pixels = cam(images.detach().clone(), [ClassifierOutputTarget(target) for target in targets.tolist()])
            finally:
                # What the library's `with` does too; but that one prints an IndexError and carries on.
                cam.activations_and_grads.release()
        return F.adaptive_avg_pool2d(torch.from_numpy(pixels), self._grid).to(images.device)


def _start_gradients(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Let the output of a layer be where gradients are wanted: what comes before it needs no graph."""
    return output.requires_grad_()


class _Frozen(nn.Module):
    """A network behind glass: the library resets the gradients and the mode of what it is given."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        tensors = chain(network.named_parameters(), network.named_buffers())
        # What was made in inference mode cannot take part in a graph, not even as a constant.
        state = {name: value.clone() if value.is_inference() else value.detach() for name, value in tensors}
        self._logits: Callable[[Tensor], Tensor] = partial(functional_call, network, state)
        # The library takes the device from the first parameter.
        self._device = nn.Parameter(torch.empty(0, device=device), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return self._logits(images)
