"""Published networks of timm: without their heads, for features, and their weights from whoever's file they come in."""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import timm
from timm.models import is_model_in_modules
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.models.families import seeded
from xai.models.weights import match_weights, read_weights, without_prefix


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
        with seeded(seed):
            network: nn.Module = timm.create_model(architecture, published, num_classes=0, **settings)
    except Exception as error:  # timm and its hub have many ways to say that there is no network
        wanted = "be fetched" if published else f"be built for {size} px"
        raise UserError(
            f"ranking.backbone.architecture={architecture} cannot {wanted} ({type(error).__name__}): give "
            "ranking.backbone.weights=FILE, set pretrained=false, or use another architecture"
        ) from error
    return network.eval()


def read_body(network: nn.Module, path: str | Path, *, what: str, model: str) -> dict[str, Tensor]:
    """The published weights of a file for a network of timm, as `body_of` gives them."""
    tensors = read_weights(Path(path), what="weights", require_finite=True).tensors
    return body_of(network, tensors, what=what, model=model)


def body_of(network: nn.Module, tensors: dict[str, Tensor], *, what: str, model: str) -> dict[str, Tensor]:
    """Published weights as a network of timm takes them; its own head stays as it is.

    timm reads the layouts of others (Meta's of DINOv2 and DINOv3, where register tokens, scales and the position of the
    class token have other names and places) and interpolates position embeddings of another grid.

    Raises:
        UserError: They are of another architecture.
    """
    published: Any = network.pretrained_cfg
    named = published["classifier"]
    heads = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
    own = network.state_dict()
    expected = {name: value.shape for name, value in own.items() if not name.startswith(heads)}
    # In a layout of others only some names are timm's.
    tensors = without_prefix(without_prefix(tensors, expected), {"patch_embed.proj.weight"} & expected.keys())
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            # timm prints what it looks for and does not find.
            with contextlib.redirect_stdout(io.StringIO()):
                tensors = convert(tensors, network)
        except Exception as error:  # timm looks for a dozen layouts by the names in them, and trusts the shapes
            raise UserError(f"{what} are not those of a {type(network).__name__} of timm") from error
    state = {name: value for name, value in tensors.items() if not name.startswith(heads) and name != "mask_token"}
    match_weights(state, expected, what=what, model=model)
    return {**{name: own[name] for name in own if name.startswith(heads)}, **state}


def not_fetched(architecture: str | None, error: Exception) -> UserError:
    """What to do where published weights cannot be fetched."""
    return UserError(
        f"the weights of {architecture} could not be fetched ({type(error).__name__}); without a network give a "
        "trained classifier as checkpoint=FILE, or its start as model.pretrained=false model.weights=FILE"
    )
