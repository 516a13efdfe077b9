"""Test-time refinement: some gradient steps of the training objective for the images at hand."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xai.core.settings import Count, NonNegative, Positive, Whole, settings
from xai.ranking.areas import Classify, smooth
from xai.ranking.objective import ObjectiveParams, Question, draw, judge
from xai.rounding import is_constant


@settings
class RefinementParams:
    """How maps are refined.

    Args:
        steps: T, gradient steps.
        draws: K, random grids, references and noises that a step's gradient is averaged over.
        size: Length of a step of the map, in standard deviations of the map it starts from.
        sigma: Smoothing of the gradient, in pixels.
        temperature: Of the soft order.
        learning_rate: Of Adam, where the decoder is refined.
    """

    steps: Whole
    draws: Count
    size: Positive
    sigma: NonNegative
    temperature: Positive
    learning_rate: Positive


@dataclass(frozen=True)
class Refinement:
    """How maps are refined, and for whom.

    Args:
        classify: The classifier, differentiable in its input.
        mean: [3] of its normalisation.
        objective: What is improved.
        params: How.
    """

    classify: Classify
    mean: Tensor
    objective: ObjectiveParams
    params: RefinementParams

    def of_maps(self, question: Question, maps: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Move maps [B, H, W] themselves along the gradient of the objective.

        A gradient of one pixel is mostly noise, so it is averaged over draws and smoothed; what is left has a direction
        and no scale, so its length is set: `size` standard deviations of the map, where a constant map counts as one of
        deviation 1.

        Args:
            question: The images and classes.
            maps: Where it starts.
            generator: Source of grids, references and noise.

        Returns:
            T + 1 maps [B, H, W]: the first is what came, the last is refined most.
        """
        flat = maps.flatten(1)
        spread = flat.std(1).masked_fill(is_constant(flat), 1.0)
        length = spread[:, None, None] * self.params.size
        refined = [maps.detach()]
        for _ in range(self.params.steps):
            gradient = smooth(self._gradient(question, refined[-1], generator), self.params.sigma)
            norm = gradient.flatten(1).std(1).clamp(min=torch.finfo(gradient.dtype).tiny)
            refined.append(refined[-1] - length * gradient / norm[:, None, None])
        return refined

    def of_network(
        self, question: Question, parameters: list[Tensor], explain: Callable[[], Tensor], generator: torch.Generator
    ) -> list[Tensor]:
        """Move the parameters that a map comes from, by Adam; the caller gives a copy that may be changed.

        Args:
            question: The images and classes; of one image, where images shall not share the network.
            parameters: What is optimised.
            explain: Gives maps [B, H, W] as a function of the parameters.
            generator: As of `of_maps`.

        Returns:
            T + 1 maps [B, H, W], the first before any step.
        """
        optimiser = torch.optim.Adam(parameters, lr=self.params.learning_rate)
        refined = []
        with torch.inference_mode(False), torch.enable_grad():
            for _ in range(self.params.steps):
                maps = explain()
                refined.append(maps.detach())
                gradient = self._gradient(question, refined[-1], generator)
                optimiser.zero_grad()
                # Nothing else that the maps come from is to collect gradients.
                with torch.autocast(maps.device.type, enabled=False):
                    maps.backward(gradient / len(maps), inputs=parameters)
                optimiser.step()
        with torch.no_grad():
            refined.append(explain())
        return refined

    def _gradient(self, question: Question, maps: Tensor, generator: torch.Generator) -> Tensor:
        """Gradient of each map's loss [B, H, W] with respect to it, averaged over draws; also in inference mode."""
        draws, temperature = self.params.draws, self.params.temperature
        with torch.inference_mode(False), torch.enable_grad():
            leaf = maps.clone().requires_grad_()
            for _ in range(draws):
                drawn = draw(self.objective, len(maps), generator)
                loss = judge(leaf, question, self.classify, self.mean, self.objective, drawn, temperature).loss
                with torch.autocast(maps.device.type, enabled=False):
                    (loss.sum() / draws).backward(inputs=[leaf])
            assert leaf.grad is not None
            return leaf.grad


def in_units(maps: Tensor, scale: float | None) -> Tensor:
    """Maps [B, H, W] with mean 0 and a deviation of `scale`, for maps whose own scale means nothing here.

    The sharpness of a soft order is the scale of its map. None leaves maps as they are; a constant map becomes 0.
    """
    if scale is None:
        return maps
    centred = maps - maps.mean((1, 2), keepdim=True)
    spread = centred.flatten(1).std(1)[:, None, None]
    constant = is_constant(maps.flatten(1))[:, None, None]
    return (centred / spread.clamp(min=torch.finfo(maps.dtype).tiny)).masked_fill(constant, 0.0) * scale
