"""Test-time refinement as an explainer: maps after 0, 1, ... T gradient steps of deletion and insertion."""

import copy
from functools import partial

import torch
from torch import Tensor

from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation, explain
from xai.metrics.functional.perturbation import enlarge_map
from xai.models.dense import DenseExplainer
from xai.models.maskable import MaskableClassifier
from xai.ranking.areas import confidence
from xai.ranking.objective import ObjectiveParams, Question
from xai.ranking.refinement import Refinement, RefinementParams, in_units


class _Refined:
    """What both refinements share: the question, and how it is asked.

    Args:
        classifier: What is explained, differentiable in its input.
        mean: [3] of its input normalisation.
        objective: What is improved.
        params: How, and by how many steps.
    """

    def __init__(
        self, classifier: MaskableClassifier, mean: Tensor, objective: ObjectiveParams, params: RefinementParams
    ) -> None:
        self._classifier, self._mean, self._objective, self._params = classifier, mean, objective, params

    def _question(self, block: Block) -> Question:
        targets = block.targets[:, None]
        with torch.no_grad():
            logits = self._classifier(block.images).float()
        return Question(block.images, targets, confidence(logits, targets))

    def _refinement(self, question: Question, block: Block) -> Refinement:
        """The draws begin where the block's do, on the device of the images."""
        generator = torch.Generator(question.images.device).manual_seed(block.generator.initial_seed())
        return Refinement(question, self._classifier, self._mean, self._objective, self._params, generator)


class RefinedMaps(_Refined):
    """Moves the maps of another explainer along the gradient.

    Args, beside those of `_Refined`:
        start: Whose maps.
        scale: Deviation that maps are brought to before the first step; None leaves them as they are.
    """

    def __init__(
        self,
        start: Explainer | BlockExplainer,
        classifier: MaskableClassifier,
        mean: Tensor,
        objective: ObjectiveParams,
        params: RefinementParams,
        scale: float | None = None,
    ) -> None:
        super().__init__(classifier, mean, objective, params)
        self._start, self._scale = start, scale

    def explain(self, block: Block) -> Explanation:
        """Maps [B, T + 1, H, W]: the first is the one it starts from, the last is refined most."""
        drawn = explain(self._start, block).maps
        if drawn is None:
            raise ValueError("there are no maps to refine: what it starts from only classifies")
        height, width = block.images.shape[-2:]
        maps = in_units(enlarge_map(drawn.detach().float(), (height, width)), self._scale)
        return Explanation(torch.stack(self._refinement(self._question(block), block).of_maps(maps), dim=1))


class RefinedDecoder(_Refined):
    """Moves the decoder of a ranking explainer, a copy for each image, by Adam.

    Args, beside those of `_Refined`:
        start: The trained explainer; it stays as it is.
    """

    def __init__(
        self,
        start: DenseExplainer,
        classifier: MaskableClassifier,
        mean: Tensor,
        objective: ObjectiveParams,
        params: RefinementParams,
    ) -> None:
        super().__init__(classifier, mean, objective, params)
        self._start = start

    def explain(self, block: Block) -> Explanation:
        """Maps [B, T + 1, H, W]: the first is the trained explainer's, the last is refined most."""
        question, images = self._question(block), []
        for row in range(len(block.images)):
            one = Question(*(part[row : row + 1] for part in question))
            decoder = copy.deepcopy(self._start.decoder).requires_grad_(True)
            draw = partial(decoder, *self._start.seen(one.images, one.targets[:, 0]))
            images.append(self._refinement(one, block).of_network(list(decoder.parameters()), draw))
        return Explanation(torch.cat([torch.stack(path, dim=1) for path in images]))
