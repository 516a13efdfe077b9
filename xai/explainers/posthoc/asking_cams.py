"""Class activation maps that ask the network about each channel: Score-CAM and Ablation-CAM."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.explainers.posthoc.cams import PatchCam, stretch
from xai.explainers.posthoc.gradients import images_at_once
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.maskable import Normalisation, exact
from xai.rounding import at_least_float32

_VALUES_AT_ONCE = 1 << 24
"""Of activations, 64 MiB: 267 channels of 1,280 on 7 x 7 cells are ablated in one pass."""

P = TypeVar("P")


class AskingCam(PatchCam[P]):
    """Weighs the channels of the layer by what the network answers when it is asked about each of them.

    The library has such methods too. It asks one image after another, keeps the activations of every pass, shows a
    progress bar, and takes the network apart to change what a layer returns; so they are written here.
    """

    def weights(self, network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor, cells: Tensor) -> Tensor:
        """Weights [B, D] of the channels of cells [B, D, h, w], what the layer returned for the images."""
        raise NotImplementedError

    def pixels(self, network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        """The weighted channels added up, and then what the library does to any map."""
        cells = at_least_float32(self._seen(network, layer, images))
        weights = self.weights(network, layer, images, targets, cells).to(cells)
        with exact(cells):  # sums of half precision would tell few cells apart
            cam = stretch(torch.einsum("bd,bdhw->bhw", weights, cells).float().relu())
        pixels = F.interpolate(cam[:, None], images.shape[-2:], mode="bilinear", align_corners=False)
        return stretch(pixels[:, 0])

    @torch.no_grad()
    def passes(self, side: int) -> int:
        """What an image of `side` pixels costs in forward passes: one for each channel of the layer, and 1."""
        network, layer, _ = self._target
        held = (*self.classifier.parameters(), *self.classifier.buffers())
        image = next((each for each in held if each.is_floating_point()), torch.zeros(())).new_zeros(1, 3, side, side)
        found = layer if isinstance(layer, nn.Module) else layer(network, image)
        return 1 + self._seen(network, found, image).shape[1]

    def _seen(self, network: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
        """What the layer returns for images, [B, D, h, w]."""
        seen: list[Tensor] = []
        with layer.register_forward_hook(lambda module, inputs, output: seen.append(self.cells(output).clone())):
            network(images)
        (cells,) = seen
        return cells


@explainer(
    "score_cam",
    label="Score-CAM",
    about="the last layer that has patches, each channel weighed by the answer for the image seen through it",
    needs={"features"},
)
class ScoreCam(AskingCam[ExplainerParams]):
    """Score-CAM (Wang et al. 2020): channels are weighed by what the network says of what they show.

    Explains with one forward pass for each channel of the layer looked at, and one more; without gradients.

    What a channel hides is the mean the network normalises with: zero in its own input, as in the paper's code. Of a
    network whose normalisation is not known it is black.
    """

    def weights(self, network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor, cells: Tensor) -> Tensor:
        """Algorithm 1: a softmax over the channels of the logits for the image times each channel's mask.

        A mask is the channel scaled up to the pixels and stretched to [0, 1] (equation 6). What the paper takes off
        each logit, that of the image that shows nothing, is the same for all channels, and no softmax sees it.
        """
        normalisation = getattr(self.classifier, "normalisation", None)
        hidden = normalisation.mean if isinstance(normalisation, Normalisation) else torch.zeros(())
        hidden = hidden.to(images)
        size, channels = images.shape[-2:], cells.shape[1]
        scores = []
        for rows in torch.arange(cells.shape[0] * channels, device=cells.device).split(images_at_once(images)):
            owner = rows // channels
            shown = cells[owner, rows % channels][:, None].to(images)
            # The corners aligned, as in the library.
            masks = F.interpolate(shown, size, mode="bilinear", align_corners=True)
            low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
            masked = torch.lerp(hidden.expand_as(images[owner]), images[owner], (masks - low) / (high - low + 1e-8))
            scores.append(network(masked).gather(1, targets[owner, None])[:, 0])
        return torch.cat(scores).unflatten(0, (-1, channels)).softmax(1)


@explainer(
    "ablation_cam",
    label="Ablation-CAM",
    about="the last layer that has patches, each channel weighed by what the logit loses without it",
    needs={"features"},
)
class AblationCam(AskingCam[ExplainerParams]):
    """Ablation-CAM (Desai and Ramaswamy 2020): channels are weighed by what their absence costs.

    Explains without gradients: what lies behind the layer runs once for each of its channels.

    What lies before it runs on the image alone, once for as many channels as memory is meant for: the layer's output is
    repeated where it returns, a row for each channel that is missing. At the layer norm of a transformer a channel is
    missing from the patches; its class token and the residual stream keep theirs.
    """

    def weights(self, network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor, cells: Tensor) -> Tensor:
        """Equation 2 but for its denominator: what the logit y of the class is more than y_k, that without channel k.

        The paper divides by y. A map that is stretched does not show it; but where y is negative, the division would
        turn the map upside down.

        Raises:
            UserError: Where the network does not follow the rows that a layer returns.
        """
        at_once = max(1, _VALUES_AT_ONCE // cells[0].numel())
        drops = []
        for image, target in zip(images.split(1), targets.tolist(), strict=True):
            for missing in torch.arange(cells.shape[1], device=cells.device).split(at_once):
                logits = self._without(network, layer, image, missing)[:, target]
                drops.append(logits[-1] - logits[:-1])
        return torch.cat(drops).unflatten(0, (len(images), -1))

    def _without(self, network: nn.Module, layer: nn.Module, image: Tensor, missing: Tensor) -> Tensor:
        """Logits [K + 1, C] of an image without each of K channels in turn, and with all of them."""

        def ablate(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            rows = output.repeat(len(missing) + 1, *[1] * (output.ndim - 1))
            self.cells(rows)[torch.arange(len(missing), device=rows.device), missing] = 0
            return rows

        with layer.register_forward_hook(ablate):
            logits = network(image)
        if len(logits) != len(missing) + 1:
            raise UserError(
                f"ablation_cam: what comes after {type(layer).__name__} does not take more rows than there are images: "
                "use grad_cam or score_cam"
            )
        return logits
