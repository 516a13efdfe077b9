"""The objective of Learn to Rank (Schinagl et al. 2026): deletion and insertion of a map, through a soft order."""

import math
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from xai.core.errors import UserError, check_finite
from xai.core.settings import Channels, Count, FieldError, NonNegative, Several, Whole, settings
from xai.models.dense import check_classes
from xai.models.maskable import References, Removal, reference_image
from xai.ranking.areas import Classify, confidence, path_areas, peak_penalty, trapezoid_weights
from xai.ranking.axes import apply_axes, pixels_to_cells
from xai.ranking.masks import order_masks
from xai.ranking.sorting import gumbel_noise
from xai.rounding import at_least_float32


def check_grid(grid: int, height: int, width: int) -> None:
    """Refuse grids finer than the image; UserError: with both sizes."""
    if not 2 <= grid <= min(height, width):
        raise UserError(
            f"a grid of {grid} x {grid} cells does not fit an image of {height} x {width} px: use 2 to "
            f"{min(height, width)} cells a side"
        )


@settings
class ObjectiveParams:
    """What a map is asked to do.

    Args:
        steps: S, points of a perturbation path from the whole image to nothing of it.
        grid_min: Smallest grid that a map is averaged to, cells a side.
        grid_max: Largest; the grid of a step is drawn from all between.
        references: What is shown instead; one is drawn for each step.
        mean: Channels that the reference `mean` shows: null takes the classifier's own, of its normalisation; the paper
            takes ImageNet's, whatever the classifier.
        iterations: Of Sinkhorn's normalisation.
        sigma: Smoothing of the masks, in pixels.
        peak_weight: Weight of the peak penalty.
        peak_window: Side of its neighbourhood, in pixels, odd.
        shift: Whether the grid is moved by a random part of a cell.
        chunk: Perturbed images in one pass of the classifier; 0 takes all at once. It changes memory, not numbers.
    """

    steps: Annotated[int, Field(ge=3, le=10_000)]
    grid_min: Several
    grid_max: int
    references: References
    iterations: Count
    sigma: NonNegative
    peak_weight: NonNegative
    peak_window: Count
    shift: bool = False
    chunk: Whole = 0
    mean: Channels | None = None

    def __post_init__(self) -> None:
        """Refuse grids and windows that cannot be."""
        if self.grid_max < self.grid_min:
            raise FieldError("grid_max", f"must be at least grid_min={self.grid_min}")
        if self.peak_window % 2 == 0:
            raise FieldError("peak_window", "must be odd: a pixel and as many on both sides")

    def check_size(self, height: int, width: int) -> None:
        """Refuse images that the grids or the neighbourhood do not fit."""
        check_grid(self.grid_max, height, width)
        if self.peak_window // 2 >= min(height, width):
            raise UserError(
                f"objective.peak_window={self.peak_window} does not fit an image of {height} x {width} px: use at most "
                f"{2 * min(height, width) - 1}"
            )

    def mean_of(self, classifier: Tensor) -> Tensor:
        """Channels [3] that the reference `mean` shows, from those of the classifier."""
        return classifier if self.mean is None else torch.tensor(self.mean)


class Draw(NamedTuple):
    """What is random in a step.

    `grid` cells a side, `reference` by name, `noise` [2, B, d, d] standard Gumbel for deletion and for insertion, and
    `shift`: how far down and across the image begins within a grid that is a cell larger, in cells, [0, 1).
    """

    grid: int
    reference: str
    noise: Tensor
    shift: tuple[float, float] | None = None


def draw(params: ObjectiveParams, batch: int, common: torch.Generator, own: torch.Generator | None = None) -> Draw:
    """Draw a step.

    Args:
        params: From what.
        batch: B.
        common: Source of the grid and the reference, the same for all processes of a training.
        own: Source of the noise; None takes the same. The noise is on its device.
    """
    at = common.device
    grid = int(torch.randint(params.grid_min, params.grid_max + 1, (), generator=common, device=at))
    reference = params.references[int(torch.randint(len(params.references), (), generator=common, device=at))]
    shift = None
    if params.shift:
        down, across = torch.rand(2, generator=common, device=at).tolist()
        shift = (down, across)
    noise = gumbel_noise(2 * batch, grid * grid, own or common).unflatten(0, (2, batch))
    return Draw(grid, reference, noise, shift)


class Question(NamedTuple):
    """Images that maps are judged on.

    `images` [B, 3, H, W] in [0, 1], `targets` [B, K] the classes whose confidence counts, `whole` [B, K] the confidence
    in the whole image.
    """

    images: Tensor
    targets: Tensor
    whole: Tensor


class Objective(NamedTuple):
    """`loss` [B] = `deletion` + 1 - `insertion` + weight * `peaks`, each [B]."""

    loss: Tensor
    deletion: Tensor
    insertion: Tensor
    peaks: Tensor


def training_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """The two classes of a training step: the predicted one, and the runner-up where that is right, else the true one.

    Args:
        logits: [B, C].
        labels: True classes [B].

    Returns:
        [B, 2].
    """
    first, second = logits.topk(2, dim=1).indices.unbind(1)
    return torch.stack([first, torch.where(first == labels, second, labels)], dim=1)


def judge(
    maps: Tensor,
    question: Question,
    classify: Classify,
    mean: Tensor,
    params: ObjectiveParams,
    drawn: Draw,
    temperature: float,
) -> Objective:
    """Deletion and insertion areas of maps along soft paths.

    The ends of all paths are known without a map: the whole image, and the reference alone. They are looked up, once
    for both paths, and only what lies between is differentiated.

    Args:
        maps: [B, H, W], higher is more important.
        question: The images and classes.
        classify: The classifier, differentiable in its input.
        mean: [3], the mean of its normalisation, where `params` names no other.
        params: The objective.
        drawn: The randomness of the step.
        temperature: tau of the soft order.

    Raises:
        UserError: Maps with NaN or infinity, a grid finer than the image, or a class out of range.
    """
    images, targets, whole = question
    batch, height, width = maps.shape
    if images.shape[-2:] != maps.shape[1:] or len(images) != batch:
        raise ValueError(f"maps are {list(maps.shape)} and images {list(images.shape)}: one pixel map an image")
    check_grid(drawn.grid, height, width)
    check_finite(maps, "the batch's maps", "nothing to rank", torch.arange(batch))
    maps = at_least_float32(maps)
    reference = reference_image(images, Removal("pixels", drawn.reference), params.mean_of(mean))
    with torch.no_grad():
        # One reference that all images share is asked about once.
        logits = classify(reference)
        check_classes(targets, logits.shape[1])
        gone = confidence(logits.expand(batch, -1), targets)
    shares = torch.linspace(0, 1, params.steps, device=maps.device)[1:-1]
    weights = trapezoid_weights(params.steps, maps.device)
    scores, shift = _cells(maps, drawn)
    both, noise = torch.cat([scores, -scores]), drawn.noise.flatten(0, 1)
    masks = order_masks(both, noise, shares, temperature, params.iterations)
    masks = masks.unflatten(0, (2, batch)).transpose(0, 1).unflatten(3, (drawn.grid, drawn.grid))
    areas, _ = path_areas(classify, images, reference, masks, targets, weights[1:-1], params.sigma, params.chunk, shift)
    ends = weights[0] * whole.mean(1) + weights[-1] * gone.mean(1)
    deletion, insertion = (areas + ends[:, None]).unbind(1)
    peaks = peak_penalty(maps, params.peak_window)
    return Objective(deletion + 1 - insertion + params.peak_weight * peaks, deletion, insertion, peaks)


def _cells(maps: Tensor, drawn: Draw) -> tuple[Tensor, tuple[int, int, int]]:
    """Means of the cells [B, d], and the margin of the grid in pixels; see `path_areas`."""
    height, width = maps.shape[1:]
    cell, down, across = 0, 0, 0
    if drawn.shift is not None:
        # One cell more covers the image wherever it begins within the first.
        cell = math.ceil(max(height, width) / (drawn.grid - 1))
        down, across = (int(part * cell) for part in drawn.shift)
    rows = pixels_to_cells(height, drawn.grid, maps, (down, cell - down))
    columns = pixels_to_cells(width, drawn.grid, maps, (across, cell - across))
    return apply_axes(rows, maps, columns).flatten(1), (cell, down, across)
