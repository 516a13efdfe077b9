"""Explainers of a user's own: called by the names that they have, and what they give looked at."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xai.core.errors import UserError, check_finite
from xai.explainers.block import Block, BlockExplainer, Explanation


@dataclass(frozen=True)
class Theirs:
    """An explainer of a user's own, called by whichever names it has, and what it gives looked at.

    Args:
        made: Something with `attribute(images, targets[, generator])`, `attribute(inputs, target)` or `explain(block)`.
        name: What messages call it.
    """

    made: Any
    name: str

    def explain(self, block: Block) -> Explanation:
        """Maps of a block.

        Raises:
            UserError: They are no maps of these images.
        """
        if isinstance(self.made, BlockExplainer):
            found = self.made.explain(block)
            return found if found.maps is None else found._replace(maps=self._checked(found.maps, block))
        parameters = inspect.signature(self.made.attribute).parameters
        if "inputs" in parameters:
            maps = self.made.attribute(block.images, target=block.targets)
        elif "generator" in parameters or _takes(parameters, 3):
            maps = self.made.attribute(block.images, block.targets, block.generator)
        else:
            maps = self.made.attribute(block.images, block.targets)
        return Explanation(self._checked(maps, block))

    def _checked(self, maps: Any, block: Block) -> Tensor:
        found = torch.as_tensor(maps) if isinstance(maps, (Tensor, np.ndarray)) else None
        came = type(maps).__name__ if found is None else str(list(found.shape))
        if found is None or found.ndim != 3 or len(found) != len(block.images):
            channels = "; of channels, add them up" if found is not None and found.ndim == 4 else ""
            raise UserError(
                f"{self.name} gives {came} for {len(block.images)} images: maps are [{len(block.images)}, h, w], a "
                f"number a patch or a pixel{channels}"
            )
        if found.is_complex():
            raise UserError(f"{self.name} gives complex numbers: maps are real ones")
        check_finite(found, f"the maps of {self.name}", "an explainer has to give finite ones", block.rows)
        return found


def _takes(parameters: Mapping[str, inspect.Parameter], count: int) -> bool:
    kinds = [each.kind for each in parameters.values()]
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Parameter.VAR_POSITIONAL in kinds or sum(kind in places for kind in kinds) >= count
