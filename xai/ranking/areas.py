"""Images that are taken away along a path, the areas under their curves, and the gradient of these in little memory."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from xai.ranking.axes import apply_axes, cells_to_pixels, moving_mean
from xai.rounding import at_least_float32

Classify = Callable[[Tensor], Tensor]
"""Images [N, 3, H, W] in [0, 1] to logits [N, C]."""

_HALF_SCALE = 2.0**12
"""Gradients of one pixel of one image of many are too small for half precision as they are."""


def enlarge(masks: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Masks of cells as masks of pixels: nearest neighbours, then a Gaussian that takes the edges off.

    Args:
        masks: [..., G, G].
        height: H.
        width: W.
        sigma: Of the Gaussian, in pixels; 0 leaves the edges. It reaches three sigma, reflected at the border.

    Returns:
        [..., H, W].
    """
    down = cells_to_pixels(masks.shape[-2], height, sigma, masks)
    across = cells_to_pixels(masks.shape[-1], width, sigma, masks)
    return apply_axes(down, masks, across)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of maps [..., H, W], as in `enlarge`."""
    height, width = maps.shape[-2:]
    return enlarge(maps, height, width, sigma)


def perturb(images: Tensor, reference: Tensor, masks: Tensor) -> Tensor:
    """Images with a share of the reference in them: x + mask * (reference - x).

    Args:
        images: [B, 3, H, W].
        reference: [B or 1, 3, H, W].
        masks: [B, S, H, W]; 1 shows the reference.

    Returns:
        [B, S, 3, H, W].
    """
    return torch.lerp(images[:, None], reference[:, None], masks.to(images)[:, :, None])


def trapezoid_weights(steps: int, device: torch.device | None = None) -> Tensor:
    """Weights [S] of S evenly spaced points on [0, 1]: with them a sum is the area by the trapezoid rule."""
    weights = torch.full((steps,), 1 / (steps - 1), device=device)
    weights[[0, -1]] /= 2
    return weights


def confidence(logits: Tensor, targets: Tensor) -> Tensor:
    """Softmax probabilities [N, K] of the classes `targets` [N, K], in float32 at least."""
    return at_least_float32(logits).softmax(-1).gather(1, targets)


def path_areas(
    classify: Classify,
    images: Tensor,
    reference: Tensor,
    masks: Tensor,
    targets: Tensor,
    weights: Tensor,
    sigma: float,
    chunk: int,
    shift: tuple[int, int, int] = (0, 0, 0),
) -> tuple[Tensor, Tensor]:
    """Weighted sums of the confidence along paths, all classes from one pass of each perturbed image.

    Such a sum is linear in the confidences, so its gradient with respect to the masks of some images needs nothing of
    the others: each chunk is run forward and backward at once, and its activations are gone before the next one comes.

    Args:
        classify: The classifier; it is not trained.
        images: [B, 3, H, W] in [0, 1].
        reference: [B or 1, 3, H, W].
        masks: [B, P, S, G, G] of P paths with S points each; 1 is gone. Gradients flow to them.
        targets: [B, K], whose confidences are averaged.
        weights: [S].
        sigma: Smoothing of the masks, see `enlarge`.
        chunk: Perturbed images in one pass; 0 takes all at once.
        shift: Width of a margin (of the grid beyond the image, in all), and where in it the image begins: (margin,
            down, across).

    Returns:
        Areas [B, P], and the confidences [B, P, S, K] they are sums of, which no gradient flows from.
    """
    areas, values = _PathAreas.apply(
        masks, classify, images, reference.expand_as(images), targets, weights, sigma, chunk, shift
    )
    return areas, values


class _PathAreas(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        masks: Tensor,
        classify: Classify,
        images: Tensor,
        reference: Tensor,
        targets: Tensor,
        weights: Tensor,
        sigma: float,
        chunk: int,
        shift: tuple[int, int, int],
    ) -> tuple[Tensor, Tensor]:
        batch, paths, steps, *grid = masks.shape
        flat = masks.detach().reshape(-1, *grid)
        owner = torch.arange(batch, device=masks.device).repeat_interleave(paths * steps)
        weight = weights.repeat(batch * paths)
        (height, width), (margin, down, across) = images.shape[-2:], shift
        wanted, values, gradients = ctx.needs_input_grad[0], [], []
        for rows in torch.arange(len(flat), device=masks.device).split(chunk or len(flat)):
            mine = owner[rows]
            with torch.set_grad_enabled(wanted):
                cells = flat[rows].requires_grad_(wanted)
                # Columns of a soft order add up to 1 only as far as Sinkhorn has come.
                pixels = enlarge(cells[:, None].clamp(0, 1), height + margin, width + margin, sigma)
                pixels = pixels[..., down : down + height, across : across + width].clamp(0, 1)
                logits = classify(perturb(images[mine], reference[mine], pixels)[:, 0])
                value = confidence(logits, targets[mine])
                values.append(value.detach())
                if wanted:
                    scale = _HALF_SCALE if logits.dtype == torch.float16 else 1.0
                    area = (value.mean(1) * weight[rows]).sum() * scale
                    # Under autocast a backward pass rounds also what the forward pass has kept in float32.
                    with torch.autocast(masks.device.type, enabled=False):
                        (gradient,) = torch.autograd.grad(area, cells)
                    gradients.append(gradient / scale)
        found = torch.cat(values).reshape(batch, paths, steps, -1)
        areas = (found.mean(-1) * weights).sum(-1)
        if wanted:
            ctx.save_for_backward(torch.cat(gradients).reshape(masks.shape))
        ctx.mark_non_differentiable(found)
        return areas, found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_masks,) = ctx.saved_tensors
        return gradients[0][:, :, None, None, None] * of_masks, *(None,) * 8


def peak_penalty(maps: Tensor, window: int) -> Tensor:
    """Mean square of what stands out above the mean of its neighbourhood, for each map.

    Args:
        maps: [B, H, W].
        window: Side of the neighbourhood in pixels, odd; 15 in the paper. Reflected at the border.

    Returns:
        [B], 0 or more.
    """
    height, width = maps.shape[-2:]
    local = apply_axes(moving_mean(height, window, maps), maps, moving_mean(width, window, maps))
    return F.relu(maps - local).square().mean((1, 2))
