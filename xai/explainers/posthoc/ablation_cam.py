"""Ablation-CAM (Desai and Ramaswamy 2020) as an explainer: channels are weighed by what their absence costs."""

import torch
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.explainers.posthoc.cams import AskingCam
from xai.explainers.registry import ExplainerParams, explainer

_VALUES_AT_ONCE = 1 << 24
"""Of activations, 64 MiB: 267 channels of 1,280 on 7 x 7 cells are ablated in one pass."""


@explainer(
    "ablation_cam",
    label="Ablation-CAM",
    about="the last layer that has patches, each channel weighed by what the logit loses without it",
    needs={"features"},
)
class AblationCam(AskingCam[ExplainerParams]):
    """Explains without gradients: what lies behind the layer runs once for each of its channels.

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
