"""What the classifier itself says of single pixels: its gradient, as something a decoder can look at."""

from typing import Literal

import torch
from torch import Tensor

from xai.models.maskable import REFERENCES, MaskableClassifier, Removal, reference_image
from xai.rounding import is_constant

Look = bool | Literal["path"]
"""Whether a decoder looks at the classifier: not at all, at its gradient, or at gradients on paths to the image."""

CHANNELS = 8
"""Of the gradient's evidence."""

NODES = 4
"""Gradients on each path, at midpoints. One at the image itself is a far worse guess of what a pixel changes."""


def channels(look: Look) -> int:
    """Channels of the evidence."""
    return 4 * len(REFERENCES) if look == "path" else CHANNELS * look


def even_sums(look: Look) -> Tensor:
    """A weight for each channel: its sums over the colours share 1, single colours have 0."""
    weights = torch.zeros(channels(look))
    sums = weights[3::4] if look == "path" else weights[6:7]
    sums += 1 / len(sums)
    return weights


def passes(look: Look) -> float:
    """What it costs an image, in forward passes of the classifier, of which a backward pass counts as two."""
    return 3.0 * (NODES * len(REFERENCES) if look == "path" else look)


def evidence(
    look: Look, classifier: MaskableClassifier, images: Tensor, targets: Tensor, mean: Tensor
) -> Tensor | None:
    """What a decoder that looks in this way is shown, [B, channels, H, W]; None where it does not look."""
    if not look:
        return None
    return (path_evidence if look == "path" else gradient_evidence)(classifier, images, targets, mean)


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
    slope = _slope(classifier, images, targets)
    promise = slope * (images - mean.to(images).reshape(3, 1, 1))
    parts = (slope, promise, promise.sum(1, keepdim=True), slope.abs().amax(1, keepdim=True))
    return torch.cat([_in_deviations(part) for part in parts], dim=1)


def path_evidence(classifier: MaskableClassifier, images: Tensor, targets: Tensor, mean: Tensor) -> Tensor:
    """Integrated Gradients (Sundararajan et al. 2017) with few nodes, from each reference of the perturbation paths.

    Args: as of `gradient_evidence`.

    Returns:
        [B, 12, H, W] in float32, without a graph: from black, mean and blur each, (image - reference) times the mean of
        the logit's gradients at `NODES` midpoints of the straight path [3], and its sum over the channels [1]; each in
        units of its own deviation over the image.
    """
    parts = []
    for name in REFERENCES:
        reference = reference_image(images.detach().float(), Removal("pixels", name), mean)
        nodes = [(node + 0.5) / NODES for node in range(NODES)]
        slopes = [_slope(classifier, torch.lerp(reference, images.float(), node), targets) for node in nodes]
        promise = torch.stack(slopes).mean(0) * (images.float() - reference)
        parts += [_in_deviations(promise), _in_deviations(promise.sum(1, keepdim=True))]
    return torch.cat(parts, dim=1)


def _slope(classifier: MaskableClassifier, images: Tensor, targets: Tensor) -> Tensor:
    """Gradients [B, 3, H, W] of the targets' logits in the pixels, in float32."""
    with torch.inference_mode(False), torch.enable_grad():
        # What was made in inference mode can be part of a graph as a copy only.
        pixels, columns = images.detach().clone().requires_grad_(), targets.clone()[:, None]
        (slope,) = torch.autograd.grad(classifier(pixels).gather(1, columns).float().sum(), pixels)
    return slope.float()


def _in_deviations(values: Tensor) -> Tensor:
    spread = values.flatten(1).std(1).clamp(min=torch.finfo(values.dtype).tiny)
    # What is the same everywhere, but for rounding, tells no pixel from another.
    return (values / spread[:, None, None, None]).masked_fill(is_constant(values.flatten(1))[:, None, None, None], 0.0)
