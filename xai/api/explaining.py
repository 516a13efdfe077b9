"""Heat maps of images in memory."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from xai.api.case import InMemory, case_of, row_of, workplace
from xai.api.door import one_line
from xai.api.model import Model, check_model
from xai.api.ready import open_explainer
from xai.core.errors import check_finite
from xai.explainers.block import Block
from xai.study.blocks import block_generator

seen: Any = WeakTensorKeyDictionary()
"""By maps that `explain` returned, the images as the classifier saw them; forgotten with the maps."""


def explain(
    model: Model,
    images: Any,
    explainer: Any = "rise",
    *,
    targets: Any = None,
    normalised: bool = False,
    block: int = 16,
    seed: int = 0,
    **settings: Any,
) -> Tensor:
    """Explain what a classifier says of images.

    Args:
        model: Of `xai.load` or `xai.wrap`.
        images: Pictures (PIL, or paths), uint8, or floats [B, 3, H, W] in [0, 1].
        explainer: A name (`xai.explainers(model)` lists them), what `xai.fit` returned, or an object with
            `attribute(images, targets)`.
        targets: The class that is explained: one for all images or one for each, numbers or names; None explains the
            predicted class of each.
        normalised: Whether the floats have been normalised as the model does, which is undone.
        block: Images that are explained together.
        seed: Of all that is drawn.
        settings: Of the explainer, instead of its own: `masks=500`, ...

    Returns:
        Maps [B, h, w] on the patch grid, or [B, H, W] of pixels, float32, on the CPU; higher is more evidence for the
        target.

    Raises:
        UserError: Images, targets, settings or the explainer do not fit; in one line.
    """
    check_model(model)
    pixels = model.pixels(images, normalised=normalised)
    chosen = model.targets(targets, pixels)
    row = row_of(explainer, settings, model.fitted)
    parts = []
    with workplace(model.device) as runtime:
        case = case_of(runtime, model, InMemory(model.classes, pixels), block=block, seed=seed)
        made = open_explainer(row, case, model)
        for number, positions in enumerate(torch.arange(len(pixels)).split(block)):
            seen_here, asked = pixels[positions].to(model.device), chosen[positions].to(model.device)
            with one_line(f"{row.name} on {model.name}"):
                maps = made.maps(Block(seen_here, asked, None, None, positions, block_generator(seed, number)))
            parts.append(maps.detach().float().cpu())
    found = torch.cat(parts)
    check_finite(found, f"the maps of {row.name}", f"outputs and gradients of {model.name} have to be finite")
    seen[found] = pixels
    return found
