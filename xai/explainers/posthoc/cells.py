"""Where a convolutional network last has cells: found by watching a forward pass, so that no family needs naming."""

from collections import Counter

import torch
from torch import Tensor, nn

from xai.core.errors import UserError


def last_layer_with_cells(network: nn.Module, run: nn.Module, image: Tensor) -> nn.Module:
    """The last layer at which a network still has cells of an image, where a class activation map looks.

    That is, of all modules that run once in a pass and return [1, D, h, w] with h w > 1, the one that returns last; a
    stage returns after all that is in it. Cells have to lie as the image does, h / w = H / W up to one cell, which
    neither channels-last features nor the attention of tokens to tokens do.

    Args:
        network: The network whose modules are watched.
        run: What is called with the image; it runs `network`, or is it.
        image: [1, 3, H, W], of the size of those to be explained, because the cells depend on it.

    Returns:
        The module.

    Raises:
        UserError: Where there is none, or where tokens [1, N, D] are computed after it, as by a transformer.
    """
    runs: Counter[nn.Module] = Counter()
    returned: list[tuple[nn.Module, torch.Size]] = []

    def watch(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        runs[module] += 1
        if isinstance(output, Tensor):
            returned.append((module, output.shape))

    hooks = [module.register_forward_hook(watch) for module in network.modules()]
    try:
        with torch.no_grad():
            run(image)
    finally:
        for hook in hooks:
            hook.remove()
    name, (height, width) = type(network).__name__, image.shape[-2:]
    tokens = False
    for module, shape in reversed(returned):
        if runs[module] == 1 and _has_cells(shape, height, width):
            if tokens:
                raise UserError(
                    f"{name} computes with tokens after its last layer with cells, so a class activation map of it "
                    "means nothing: use kernel_shap"
                )
            return module
        # A module without parameters of its own may be laying cells out for their average.
        tokens |= len(shape) == 3 and any(True for _ in module.parameters(recurse=False))
    raise UserError(
        f"no layer of {name} has more than one cell for images of {height} x {width} px, so there is no class "
        "activation map: use larger images, or kernel_shap"
    )


def _has_cells(shape: torch.Size, height: int, width: int) -> bool:
    """Whether a shape is [1, D, h, w] with h w > 1, and of an image's proportions up to one cell."""
    if len(shape) != 4 or shape[0] != 1 or shape[2] * shape[3] == 1:
        return False
    return abs(shape[2] * width - shape[3] * height) <= max(height, width)
