"""What class activation maps share: pytorch-grad-cam run on a classifier, and its pixels averaged in patches."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai.explainers.block import OfClassifier, check_targets
from xai.explainers.posthoc.cam_targets import cam_target
from xai.explainers.posthoc.frozen import Frozen
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
