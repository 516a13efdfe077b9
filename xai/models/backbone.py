"""Networks of timm without their heads, for features."""

from typing import Any

import timm
import torch
from timm.models import is_model_in_modules
from torch import nn

from xai.core.errors import UserError


def headless(architecture: str, size: int, seed: int = 0, *, published: bool = False) -> nn.Module:
    """A network of timm without its head.

    Args:
        architecture: Its name.
        size: Side of the images in pixels.
        seed: Of random weights.
        published: Fetch timm's published weights.

    Raises:
        UserError: The weights cannot be had, or the network not be built.
    """
    # Plain transformers are built for one size; all others take images as they come.
    plain = is_model_in_modules(architecture, ("vision_transformer", "deit"))
    settings: dict[str, Any] = {"img_size": size} if plain else {}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network: nn.Module = timm.create_model(architecture, published, num_classes=0, **settings)
    except Exception as error:  # timm and its hub have many ways to say that there is no network
        wanted = "be fetched" if published else f"be built for {size} px"
        raise UserError(
            f"ranking.backbone.architecture={architecture} cannot {wanted} ({type(error).__name__}): give "
            "ranking.backbone.weights=FILE, set pretrained=false, or use another architecture"
        ) from error
    return network.eval()
