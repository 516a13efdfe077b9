"""What the classifier itself says of single pixels: its gradient, as something a decoder can look at."""

import torch
from torch import Tensor

from xai.models.maskable import MaskableClassifier

CHANNELS = 8
"""Of the evidence."""


def gradient_evidence(classifier: MaskableClassifier, images: Tensor, targets: Tensor, mean: Tensor) -> Tensor:
    """The gradient of a class's logit, and what it promises for showing a pixel instead of the mean.

    Args:
        classifier: Frozen, differentiable in its input.
        images: [B, 3, H, W] in [0, 1].
        targets: Classes [B].
        mean: [3], of the classifier's normalisation.

    Returns:
        [B, 8, H, W] in float32, without a graph: the gradient [3], gradient times (image - mean) [3], the sum of that
        over the channels, and the largest size of the gradient among them; each in units of its own deviation over the
        image, for gradients of different images differ in size by orders of magnitude.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # What was made in inference mode can be part of a graph as a copy only.
        pixels, columns = images.detach().clone().requires_grad_(), targets.clone()[:, None]
        (slope,) = torch.autograd.grad(classifier(pixels).gather(1, columns).float().sum(), pixels)
    slope = slope.float()
    promise = slope * (images - mean.to(images).reshape(3, 1, 1))
    parts = (slope, promise, promise.sum(1, keepdim=True), slope.abs().amax(1, keepdim=True))
    return torch.cat([_in_deviations(part) for part in parts], dim=1)


def _in_deviations(values: Tensor) -> Tensor:
    spread = values.flatten(1).std(1).clamp(min=torch.finfo(values.dtype).tiny)
    return values / spread[:, None, None, None]
