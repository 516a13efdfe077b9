"""Score-CAM (Wang et al. 2020) as an explainer: channels are weighed by what the network says of what they show."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xai.explainers.posthoc.cams import AskingCam
from xai.explainers.posthoc.gradients import images_at_once
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.maskable import Normalisation


@explainer(
    "score_cam",
    label="Score-CAM",
    about="the last layer that has patches, each channel weighed by the answer for the image seen through it",
    needs={"features"},
)
class ScoreCam(AskingCam[ExplainerParams]):
    """Explains with one forward pass for each channel of the layer looked at, and one more; without gradients.

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
