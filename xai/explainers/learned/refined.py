"""Test-time refinement as an explainer: maps after 0, 1, ... T gradient steps of deletion and insertion."""

import copy
from functools import partial

import torch

from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation, explain
from xai.metrics.functional.perturbation import enlarge_map
from xai.models.dense import DenseExplainer
from xai.ranking.areas import confidence
from xai.ranking.objective import Question
from xai.ranking.refinement import Refinement, in_units


class RefinedMaps:
    """Moves the maps of another explainer along the gradient.

    Args:
        start: Whose maps.
        refinement: What is asked, what is improved, how, and by how many steps.
        scale: Deviation that maps are brought to before the first step; None leaves them as they are.
    """

    def __init__(self, start: Explainer | BlockExplainer, refinement: Refinement, scale: float | None = None) -> None:
        self._start, self._refinement, self._scale = start, refinement, scale

    def explain(self, block: Block) -> Explanation:
        """Maps [B, T + 1, H, W]: the first is the one it starts from, the last is refined most."""
        drawn = explain(self._start, block).maps
        if drawn is None:
            raise ValueError("there are no maps to refine: what it starts from only classifies")
        maps = in_units(enlarge_map(drawn.detach().float(), block.images.shape[-2:]), self._scale)
        path = self._refinement.of_maps(_question(self._refinement, block), maps, _source(block))
        return Explanation(torch.stack(path, dim=1))


class RefinedDecoder:
    """Moves the decoder of a ranking explainer, a copy for each image, by Adam.

    Args:
        start: The trained explainer; it stays as it is.
        refinement: As of `RefinedMaps`.
    """

    def __init__(self, start: DenseExplainer, refinement: Refinement) -> None:
        self._start, self._refinement = start, refinement

    def explain(self, block: Block) -> Explanation:
        """Maps [B, T + 1, H, W]: the first is the trained explainer's, the last is refined most."""
        question, images = _question(self._refinement, block), []
        for row in range(len(block.images)):
            one = Question(*(part[row : row + 1] for part in question))
            decoder = copy.deepcopy(self._start.decoder).requires_grad_(True)
            draw = partial(decoder, *self._start.seen(one.images, one.targets[:, 0]))
            images.append(self._refinement.of_network(one, list(decoder.parameters()), draw, _source(block)))
        return Explanation(torch.cat([torch.stack(path, dim=1) for path in images]))


def _question(refinement: Refinement, block: Block) -> Question:
    targets = block.targets[:, None]
    with torch.no_grad():
        logits = refinement.classify(block.images).float()
    return Question(block.images, targets, confidence(logits, targets))


def _source(block: Block) -> torch.Generator:
    """The draws begin where the block's do, on the device of the images."""
    return torch.Generator(block.images.device).manual_seed(block.generator.initial_seed())
