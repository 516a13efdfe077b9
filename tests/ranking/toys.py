"""A small classifier, random questions, and the training step of Learn to Rank as its authors publish it."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from tests.toolbox import randn, seeded
from xai.ranking.areas import confidence
from xai.ranking.objective import Draw, Objective, ObjectiveParams, Question
from xai.ranking.sorting import plain_sinkhorn

MEAN = torch.tensor([0.4, 0.5, 0.6])
PARAMS = ObjectiveParams(
    steps=5,
    grid_min=3,
    grid_max=5,
    references=("black", "mean", "blur"),
    iterations=30,
    sigma=1.0,
    peak_weight=0.0025,
    peak_window=5,
)


def params(**changes: object) -> ObjectiveParams:
    return replace(PARAMS, **changes)


class Toy(nn.Module):
    """Every pixel has a weight of its own, nothing is linear, and confidences lie far from 1 / C."""

    def __init__(self, height: int, width: int, classes: int = 4, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        pixels = 3 * height * width
        self.hidden = nn.Linear(pixels, 16, dtype=dtype)
        self.head = nn.Linear(16, classes, dtype=dtype)
        with torch.no_grad():
            self.hidden.weight.copy_(4 * randn(16, pixels) / pixels**0.5)
            self.hidden.bias.copy_(randn(16, seed=1))
            self.head.weight.copy_(randn(classes, 16, seed=2))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.hidden(images.flatten(1)).tanh())


def question(
    classify: Callable[[Tensor], Tensor], height: int, width: int, batch: int = 2, classes: int = 2
) -> Question:
    """Images with their most likely classes."""
    images = torch.rand(batch, 3, height, width, generator=seeded(3), dtype=torch.float64)
    with torch.no_grad():
        logits = classify(images)
    targets = logits.topk(classes, dim=1).indices
    return Question(images, targets, confidence(logits, targets))


def drawn(grid: int, reference: str, batch: int = 2) -> Draw:
    uniform = torch.rand(2, batch, grid**2, grid**2, generator=seeded(4), dtype=torch.float64)
    return Draw(grid, reference, -(-uniform.log()).log())


def published_masks(permutation: Tensor, shares: Tensor) -> Tensor:
    """Cumulative sums after a zero row, and between two of them a straight line."""
    cells = permutation.shape[-1]
    sums = torch.cat([torch.zeros_like(permutation[:, :1]), permutation.cumsum(1)], dim=1)
    position = shares * cells
    below = position.floor().long().clamp(max=cells - 1)
    return torch.lerp(sums[:, below], sums[:, below + 1], (position - below)[None, :, None])


def published_step(
    maps: Tensor,
    asked: Question,
    classify: Callable[[Tensor], Tensor],
    settings: ObjectiveParams,
    random: Draw,
    temperature: float,
    exact_end: bool = False,
    clamped: bool = True,
) -> Objective:
    """One step, line by line: all points of both paths, and the classifier once for each class.

    `exact_end` replaces the last mask, which adds up to one only as far as Sinkhorn has come, by ones; without
    `clamped` masks leave [0, 1] for the same reason.
    """
    (batch, height, width), grid = maps.shape, random.grid
    images = asked.images
    if random.reference == "blur":
        reach = max(height, width) // 12
        reference = gaussian_blur(images, [2 * reach + 1] * 2, [2.0 * reach + 1] * 2)
    else:
        level = MEAN.double() if random.reference == "mean" else torch.zeros(3).double()
        reference = level[:, None, None].expand_as(images)
    cell = 0 if random.shift is None else -(-max(height, width) // (grid - 1))
    down, across = (int(part * cell) for part in random.shift or (0, 0))
    scores = F.pad(maps[:, None], (across, cell - across, down, cell - down), mode="replicate")
    scores = F.adaptive_avg_pool2d(scores, grid).flatten(1)
    anchors = torch.linspace(1, 0, grid**2, dtype=maps.dtype)
    shares = torch.linspace(0, 1, settings.steps, dtype=maps.dtype)
    areas = []
    for signed, noise in zip((scores, -scores), random.noise, strict=True):
        log_alpha = -((signed[:, None, :] - anchors[None, :, None]) ** 2) + noise
        masks = published_masks(plain_sinkhorn(log_alpha / temperature, settings.iterations), shares)
        if exact_end:
            masks = torch.cat([masks[:, :-1], torch.ones_like(masks[:, -1:])], dim=1)
        masks = masks.clamp(0, 1) if clamped else masks
        pixels = F.interpolate(masks.unflatten(2, (grid, grid)), (height + cell, width + cell), mode="nearest")
        pixels = gaussian_blur(pixels, [7, 7], [settings.sigma] * 2)
        pixels = pixels.clamp(0, 1) if clamped else pixels
        pixels = pixels[..., down : down + height, across : across + width]
        perturbed = torch.lerp(images[:, None], reference[:, None], pixels[:, :, None])
        curves = []
        for column in asked.targets.T:
            probabilities = classify(perturbed.flatten(0, 1)).softmax(-1).unflatten(0, (batch, -1))
            curves.append(probabilities[torch.arange(batch), :, column])
        areas.append(torch.trapezoid(torch.stack(curves).mean(0), shares))
    reach = settings.peak_window // 2
    local = F.avg_pool2d(F.pad(maps[:, None], [reach] * 4, mode="reflect"), settings.peak_window, stride=1)[:, 0]
    peaks = (maps - local).relu().square().mean((1, 2))
    deletion, insertion = areas
    return Objective(deletion + (1 - insertion) + settings.peak_weight * peaks, deletion, insertion, peaks)
