"""The objective of Learn to Rank in the plain way, as its authors published it: what `ranking_step` compares with.

All S points of both paths, both ends among them; Sinkhorn as a loop; one pass of the classifier for each of the two
classes, over the same perturbed images; and one graph that keeps everything for the way back.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.models.maskable import Removal, reference_image
from xai.ranking.areas import Classify, peak_penalty
from xai.ranking.objective import Draw, ObjectiveParams, Question
from xai.ranking.sorting import assignment_scores, plain_sinkhorn


def published_loss(
    maps: Tensor,
    question: Question,
    classify: Classify,
    mean: Tensor,
    params: ObjectiveParams,
    drawn: Draw,
    temperature: float,
) -> Tensor:
    """Loss [B] of maps, from the arguments of `xai.ranking.objective.judge`.

    Args:
        maps: [B, H, W], higher is more important.
        question: Images and classes; the confidence in the whole image is asked again.
        classify: The classifier.
        mean: [3], the mean of its normalisation.
        params: The objective.
        drawn: The randomness of the step, without a shift of the grid.
        temperature: tau of the soft order.
    """
    images, targets, _ = question
    reference = reference_image(images, Removal("pixels", drawn.reference), mean)
    scores = F.adaptive_avg_pool2d(maps[:, None], drawn.grid).flatten(1)
    shares = torch.linspace(0, 1, params.steps, device=maps.device)
    areas = []
    for signed, noise in zip((scores, -scores), drawn.noise, strict=True):
        order = plain_sinkhorn(assignment_scores(signed, noise, temperature), params.iterations)
        masks = _interpolated_sums(order, shares).unflatten(2, (drawn.grid, drawn.grid))
        pixels = F.interpolate(masks, images.shape[-2:], mode="nearest")
        shown = _smoothed(pixels, params.sigma) if params.sigma > 0 else pixels
        perturbed = torch.lerp(images[:, None], reference[:, None], shown[:, :, None])
        curves = [_curve(classify, perturbed, target) for target in targets.unbind(1)]
        areas.append(torch.trapezoid(torch.stack(curves), shares).mean(0))
    deletion, insertion = areas
    return deletion + 1 - insertion + params.peak_weight * peak_penalty(maps, params.peak_window)


def _interpolated_sums(order: Tensor, shares: Tensor) -> Tensor:
    """Masks [B, S, d]: sums of the first rows, interpolated between neighbouring numbers of rows."""
    cells = order.shape[-1]
    sums = F.pad(order.cumsum(1), (0, 0, 1, 0))
    position = shares * cells
    below = position.floor().long().clamp(max=cells - 1)
    return torch.lerp(sums[:, below], sums[:, below + 1], (position - below)[:, None])


def _smoothed(masks: Tensor, sigma: float) -> Tensor:
    """Masks [B, S, H, W] under a Gaussian that reaches three sigma, reflected at the border."""
    reach = min(math.ceil(3 * sigma), *(side - 1 for side in masks.shape[-2:]))
    steps = torch.arange(-reach, reach + 1, device=masks.device)
    kernel = torch.softmax(-0.5 * (steps / sigma) ** 2, 0)
    padded = F.pad(masks, [reach] * 4, mode="reflect").flatten(0, 1)[:, None]
    across = F.conv2d(padded, kernel.reshape(1, 1, 1, -1))
    return F.conv2d(across, kernel.reshape(1, 1, -1, 1)).reshape(masks.shape)


def _curve(classify: Classify, perturbed: Tensor, target: Tensor) -> Tensor:
    """Confidence [B, S] of perturbed images [B, S, 3, H, W] in one class [B] each."""
    batch, steps = perturbed.shape[:2]
    probabilities = classify(perturbed.flatten(0, 1)).float().softmax(1)
    return probabilities.gather(1, target.repeat_interleave(steps)[:, None]).reshape(batch, steps)
