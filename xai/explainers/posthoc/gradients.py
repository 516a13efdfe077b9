"""What explainers by gradients with respect to pixels share."""

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from functools import partial
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from xai.core.errors import UserError
from xai.core.settings import FieldError, NonNegative, settings
from xai.explainers.block import OfClassifier, check_targets, source
from xai.explainers.params import MapParams, OutputParams
from xai.games import read_out
from xai.models.maskable import MaskableClassifier
from xai.ranking.areas import smooth
from xai.rounding import at_least_float32


class Frozen(nn.Module):
    """A network behind glass: libraries of explanations reset the gradients and the mode of what they are given.

    It has none of the network's parameters, so gradients flow to images and to activations only. It works on networks
    made in inference mode too, once that mode is left.

    Args:
        network: Maps images [B, 3, H, W] to logits [B, C].
        device: Where the network is.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        tensors = chain(network.named_parameters(), network.named_buffers())
        # What was made in inference mode cannot take part in a graph, not even as a constant.
        state = {name: value.clone() if value.is_inference() else value.detach() for name, value in tensors}
        self._logits: Callable[[tuple[Tensor, ...]], Tensor] = partial(functional_call, network, state)
        # pytorch-grad-cam takes the device from the first parameter.
        self._device = nn.Parameter(torch.empty(0, device=device), requires_grad=False)

    def forward(self, images: Tensor, *more: Tensor) -> Tensor:
        """Logits [B, C] of images [B, 3, H, W]; or whatever the network makes of them and of `more`."""
        return self._logits((images, *more))


class Within(nn.Module):
    """A function that calls a classifier's parts, as a network: they have the parameters that `Frozen` gives it."""

    def __init__(self, classifier: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.classifier, self._function = classifier, function

    def forward(self, *given: Tensor) -> Tensor:
        """What the function gives."""
        return self._function(*given)


_PIXELS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 21}
"""Pixels differentiated in one pass, 10 and 41 images of 224 x 224 px: a pass keeps much for its way back."""


@settings
class GradientParams(MapParams, OutputParams):
    """Which output is differentiated, and what the map is of.

    Args:
        sigma: Of the Gaussian that smooths a map of pixels, in pixels; 0 leaves it as it comes.
    """

    _: KW_ONLY
    sigma: NonNegative = 0.0

    def __post_init__(self) -> None:
        """Refuse to smooth patches."""
        if self.sigma and not self.of_pixels:
            raise FieldError("sigma", "smooths maps of pixels: set resolution=pixel")


P = TypeVar("P", bound=GradientParams)


class PixelGradients:
    """The gradient of a class's output with respect to the pixels; the classifier stays as it is.

    Make it anew for each batch: it takes the parameters as they are when it is made.

    Args:
        classifier: Any, on its device, in the mode it is explained in.
        output: `logit`, `probability` or `centred_logit`.
        device: Where the classifier and the images are.
    """

    def __init__(self, classifier: MaskableClassifier, output: str, device: torch.device) -> None:
        with torch.inference_mode(False):
            self._network = Frozen(classifier, device)
        self._output = output
        # Without a scaler, gradients this small vanish in float16.
        self._mixed = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) != torch.float16

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Gradients [B, 3, H, W], at least in float32, of images [B, 3, H, W] for the classes `targets` [B]."""
        return self.within(images, targets, list)[0]

    def at_points(self, points: Tensor, targets: Tensor) -> Tensor:
        """Gradients [K, B, 3, H, W] at K points [K, B, 3, H, W] of each image, for its class of `targets` [B]."""
        return self(points.flatten(0, 1), targets.repeat(len(points))).unflatten(0, (len(points), -1))

    def within(self, images: Tensor, targets: Tensor, kept: Callable[[], Iterable[Tensor]]) -> list[Tensor]:
        """Gradients with respect to the pixels, and to tensors that the forward pass makes of them.

        Args:
            images: [B, 3, H, W].
            targets: [B].
            kept: Called after the forward pass; gives those tensors.

        Returns:
            Gradients of the pixels' shape, then of those of the tensors, at least in float32.
        """
        mixed = torch.autocast(images.device.type, enabled=self._mixed)
        with torch.inference_mode(False), torch.enable_grad(), mixed:
            # What was made in inference mode can be part of a graph as a copy only.
            pixels, columns = images.detach().clone().requires_grad_(), targets.clone()[:, None]
            values = read_out(at_least_float32(self._network(pixels)), self._output)
            total, more = values.gather(1, columns).sum(), list(kept())
            # Of what is on no way to the answer, as what another head has made, the gradient is 0.
            gradients = torch.autograd.grad(total, [pixels, *more], materialize_grads=bool(more))
        return [at_least_float32(gradient) for gradient in gradients]


class PixelExplainer(OfClassifier[P]):
    """Attributions of pixels that are taken together within patches, unless pixels are asked for.

    A subclass says what a pixel gets (`pixels`), and how those of a patch are taken together (`within`).
    """

    within: Callable[..., Tensor] = torch.sum

    def pixels(self, gradients: PixelGradients, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Attributions [b, H, W] of images [b, 3, H, W], a part of those of a call; see `in_parts`."""
        raise NotImplementedError

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attributions of images [B, 3, H, W] for the classes `targets` [B]; all images share what is drawn.

        Returns:
            [B, h, w] of patches, or [B, H, W] of pixels.

        Raises:
            ValueError: Where there is not one target for each of one or more images.
        """
        gradients = PixelGradients(self.classifier, self.params.output, images.device)
        pixels = in_parts(partial(self.pixels, gradients), images, targets, generator)
        if not self.params.of_pixels:
            return type(self).within(by_patch(pixels, self.classifier.grid), (3, 4))
        return smooth(pixels, self.params.sigma) if self.params.sigma else pixels


def images_at_once(images: Tensor) -> int:
    """How many images of the size of `images` [B, 3, H, W] are differentiated in one pass."""
    pixels = images.shape[-2] * images.shape[-1]
    return max(1, _PIXELS_AT_ONCE.get(images.device.type, _PIXELS_AT_ONCE["cuda"]) // pixels)


def in_parts(
    compute: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    images: Tensor,
    targets: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What is computed of images [B, ...] and targets [B], [B, ...], of as many at once as memory is meant for.

    What is drawn from the generator is the same for each part of them.

    Raises:
        ValueError: Where there is not one target for each of one or more images.
    """
    check_targets(images, targets)
    generator, found = source(generator), []
    size, start = images_at_once(images), generator.get_state()
    for part in zip(images.split(size), targets.split(size), strict=True):
        generator.set_state(start)
        found.append(compute(*part, generator))
    return torch.cat(found)


def points_at_once(images: Tensor) -> int:
    """The same of points of each of the images."""
    return max(1, images_at_once(images) // len(images))


def by_patch(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cut maps [B, H, W] into the patches of a grid (h, w): [B, h, w, H / h, W / w].

    Raises:
        UserError: Where the grid does not divide the image.
    """
    height, width = pixels.shape[1:]
    if height % grid[0] or width % grid[1]:
        raise UserError(f"a grid of {grid[0]} x {grid[1]} does not divide an image of {height} x {width}")
    return pixels.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).transpose(2, 3)
