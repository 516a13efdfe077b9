"""Where a class activation map looks: for each family of classifiers the layer, and how its output lies on the grid."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, singledispatch
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.explainers.posthoc.gradients import Within
from xai.models.clip import SelfExplainingClip
from xai.models.maskable import MaskableClassifier, PaintedClassifier, class_logits
from xai.models.timm_vit import MaskableVit


class CamTarget(NamedTuple):
    """What a class activation map needs to know of a classifier.

    Attributes:
        network: The classifier as a plain network: images [B, 3, H, W] in [0, 1] to logits [B, C].
        layer: A part of it that runs once in a forward pass and returns one tensor, on which the logits depend; or what
            finds this part, of (what runs the network, an image [1, 3, H, W]), where it depends on the image's size.
        to_grid: Lays that tensor out as [B, D, h, w]: D channels; patches, or cells of a convolution, down and across.
            What it returns is a view: it shares its memory with that tensor.
    """

    network: nn.Module
    layer: nn.Module | Callable[[nn.Module, Tensor], nn.Module]
    to_grid: Callable[[Tensor], Tensor]


@singledispatch
def cam_target(classifier: MaskableClassifier) -> CamTarget:
    """Where class activation maps of a classifier are made.

    A family of classifiers is added by a function of its type that is registered here: `@cam_target.register`.

    Raises:
        UserError: Where nobody has registered the type of the classifier.
    """
    raise UserError(f"class activation maps know no layer of a {type(classifier).__name__} to look at: use kernel_shap")


@cam_target.register
def _(classifier: SelfExplainingClip) -> CamTarget:
    """The first layer norm of the last block: behind it, the tokens of the patches still reach the logits by [CLS]."""
    last = classifier.visual.transformer.resblocks[-1]
    return CamTarget(
        # To predict with patches removed the tower is taken apart; to explain itself it runs as open_clip wrote it.
        Within(classifier, lambda images: classifier.explain(images).logits),
        last.ln_1,
        tokens_to_grid(classifier.grid, prefix=1),
    )


@cam_target.register
def _(classifier: MaskableVit) -> CamTarget:
    """The first layer norm of the last block, as for CLIP."""
    network = classifier.network
    return CamTarget(
        Within(classifier, lambda images: class_logits(network(classifier.normalisation(images)))),
        network.blocks[-1].norm1,
        tokens_to_grid(classifier.grid, prefix=network.num_prefix_tokens),
    )


@cam_target.register
def _(classifier: PaintedClassifier) -> CamTarget:
    """The last layer with cells: the network is anybody's, and only a forward pass tells how it ends."""
    network = classifier.network
    return CamTarget(
        Within(classifier, lambda images: class_logits(network(classifier.normalisation(images)))),
        partial(last_layer_with_cells, network),
        lambda output: output,
    )


def tokens_to_grid(grid: tuple[int, int], prefix: int) -> Callable[[Tensor], Tensor]:
    """Lay the tokens of a transformer out on the patch grid.

    Args:
        grid: Patches down and across (h, w).
        prefix: Tokens that stand before the patches and are dropped: class, distillation and register tokens.

    Returns:
        A function of tokens [B, prefix + h w, D] that returns [B, D, h, w].
    """

    def lay(tokens: Tensor) -> Tensor:
        if tokens.ndim != 3 or tokens.shape[1] != prefix + grid[0] * grid[1]:
            raise ValueError(f"tokens are {list(tokens.shape)}, expected [B, {prefix} + {grid[0]} * {grid[1]}, D]")
        return tokens[:, prefix:].transpose(1, 2).unflatten(2, grid)

    return lay


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

    with ExitStack() as watched, torch.no_grad():
        for module in network.modules():
            watched.enter_context(module.register_forward_hook(watch))
        run(image)
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
