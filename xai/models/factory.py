"""Building CLIP models from their configuration, and reading base weights that others have trained."""

import copy
import os
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.pos_embed import get_2d_sincos_pos_embed
from open_clip.transformer import VisionTransformer
from pydantic import Field
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import FieldError, settings
from xai.data.captions import Tokenizer
from xai.models.clip import SelfExplainingClip
from xai.models.families import Depth, Geometry, Heads, Scale, Text, Width, seeded
from xai.models.maskable import Removal, of_ours
from xai.models.weights import match_weights, read_weights

_NO_VIT = "model.architecture={} is no plain CLIP with a ViT tower; use one that is, such as ViT-B-32"
_SAME_CHANNELS = 1e-3


@settings
class SmallTowers:
    """Shape of the embedded CLIP.

    Args:
        embed_dim: K, the width both towers end in.
        width: Width of the visual tower: sine and cosine of two coordinates share it.
        layers: Its depth.
        head_width: Width of one of its attention heads.
        text_width: Width of the text tower.
        text_layers: Its depth.
        text_heads: Its attention heads.
        position_scale: Size of the sin-cos position embedding the training starts from.
    """

    embed_dim: Width
    width: Annotated[int, Field(ge=1, le=2**14, multiple_of=4)]
    layers: Depth
    head_width: Width
    text_width: Width
    text_layers: Depth
    text_heads: Heads
    position_scale: Scale

    def __post_init__(self) -> None:
        """Refuse widths that cannot be cut into heads."""
        for whole, part in (("width", "head_width"), ("text_width", "text_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise FieldError(whole, f"must be a multiple of {part}={getattr(self, part)}")


@settings
class ClipParams(Geometry):
    """A CLIP model.

    Args:
        architecture: open_clip's name of the architecture, or null for small towers.
        pretrained: open_clip's tag of the weights, fetched from the hub; null leaves them to `weights`.
        weights: A local file of open_clip weights; it comes before `pretrained`.
        random_weights: Take random weights where neither is given (tests of the plumbing, never of the science).
        towers: Shape of the small towers that the framework pre-trains itself.
        quick_gelu: Whether the towers activate by QuickGELU, as OpenAI's do; null follows the architecture, or the
            weights that `pretrained` names.
    """

    architecture: Text | None = None
    pretrained: str | None = None
    weights: str | None = None
    random_weights: bool = False
    towers: SmallTowers | None = None
    quick_gelu: bool | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together."""
        super().__post_init__()
        if (self.architecture is None) == (self.towers is None):
            raise FieldError("name", "needs either architecture (an open_clip name) or towers, and not both")
        if self.architecture is not None and self.architecture not in open_clip.list_models():
            raise FieldError("architecture", "is not one that open_clip knows: use one that it lists")
        published = self.published.get("quick_gelu")
        if published is not None and self.quick_gelu not in (None, published):
            raise FieldError(
                "quick_gelu",
                f"contradicts pretrained={self.pretrained}, trained with {str(published).lower()}: leave it out",
            )

    @property
    def published(self) -> dict[str, Any]:
        """What open_clip publishes of the weights that `pretrained` names; nothing where it does not know them."""
        if self.architecture is None or self.pretrained is None:
            return {}
        found = open_clip.get_pretrained_cfg(self.architecture, self.pretrained)
        built = (open_clip.get_model_config(self.architecture) or {}).get("quick_gelu", False)
        return {"quick_gelu": bool(built), **found} if found else {}

    @property
    def activates_quickly(self) -> bool:
        """Whether its towers activate by QuickGELU."""
        if self.quick_gelu is not None or self.architecture is None:
            return bool(self.quick_gelu)
        built = (open_clip.get_model_config(self.architecture) or {}).get("quick_gelu", False)
        return bool(self.published.get("quick_gelu", built))

    @property
    def embedded(self) -> bool:
        """Whether the framework trains the base weights itself."""
        return self.towers is not None


def build_clip(params: ClipParams, seed: int = 0) -> CLIP:
    """Build a CLIP with random weights, in training mode."""
    with seeded(seed):
        clip = _build_small(params, params.towers) if params.towers is not None else _build_open_clip(params)
    if not isinstance(clip.visual, VisionTransformer):
        raise UserError(_NO_VIT.format(params.architecture))
    if (
        tuple(clip.visual.image_size) != (params.image_size,) * 2
        or tuple(clip.visual.patch_size) != (params.patch_size,) * 2
    ):
        raise UserError(
            f"model.architecture={params.architecture} takes {clip.visual.image_size[0]} px in patches of "
            f"{clip.visual.patch_size[0]}, not image_size={params.image_size} and patch_size={params.patch_size}"
        )
    return clip


def _build_open_clip(params: ClipParams) -> CLIP:
    # Built from open_clip's configuration rather than by its factory, which warns that weights are missing.
    settings = open_clip.get_model_config(params.architecture or "") or {}
    if set(settings) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale"}:
        raise UserError(_NO_VIT.format(params.architecture))
    vision = CLIPVisionCfg(**{**settings["vision_cfg"], "image_size": params.image_size})
    settings["quick_gelu"] = params.activates_quickly
    return CLIP(**{**settings, "vision_cfg": vision, "text_cfg": CLIPTextCfg(**settings["text_cfg"])})


def _build_small(params: ClipParams, towers: SmallTowers) -> CLIP:
    tokenizer = WordTokenizer()
    vision = CLIPVisionCfg(
        layers=towers.layers,
        width=towers.width,
        head_width=towers.head_width,
        patch_size=params.patch_size,
        image_size=params.image_size,
    )
    text = CLIPTextCfg(
        context_length=tokenizer.context_length,
        vocab_size=tokenizer.vocab_size,
        width=towers.text_width,
        heads=towers.text_heads,
        layers=towers.text_layers,
    )
    clip = CLIP(towers.embed_dim, vision, text, quick_gelu=params.activates_quickly)
    # A start that knows the plane: from random positions a small ViT does not learn to find an object in minutes.
    positions = get_2d_sincos_pos_embed(towers.width, params.grid, cls_token=True)
    with torch.no_grad():
        clip.visual.positional_embedding.copy_(towers.position_scale * torch.from_numpy(positions).float())
    return clip


def build_tokenizer(params: ClipParams) -> Tokenizer:
    """The tokenizer that belongs to a model."""
    if params.architecture is None:
        return WordTokenizer()
    return open_clip.get_tokenizer(params.architecture)


def build_explainer(
    params: ClipParams, clip: CLIP, head: Tensor, removal: Removal | None = None, *, copied: bool = False
) -> SelfExplainingClip:
    """The self-explaining classifier of a CLIP: its visual tower, or a copy, and the class embeddings `head` [K, C]."""
    scale = float(clip.logit_scale.detach().exp())
    visual = copy.deepcopy(clip.visual) if copied else clip.visual
    return of_ours(SelfExplainingClip(visual, head, scale, params.mean, params.std, removal))


def base_weights_file(params: ClipParams) -> Path:
    """The file that holds a model's base weights: the local one, or the one open_clip fetches from its hub.

    Raises:
        UserError: There is none, or it normalises otherwise than its weights were trained with.
    """
    for name in ("mean", "std"):
        stated, asked = params.published.get(name), getattr(params, name)
        if stated and max(abs(a - b) for a, b in zip(stated, asked, strict=True)) > _SAME_CHANNELS:
            other = (
                "" if params.weights is None else ", or leave pretrained out where the file is of a training of yours"
            )
            raise UserError(
                f"model.{name}={list(asked)} is not what model.pretrained={params.pretrained} was trained with: set "
                f"model.{name}={list(stated)}{other}"
            )
    if params.weights is not None:
        return Path(params.weights)
    if params.pretrained is None:
        raise UserError(f"model={params.name} has no weights: set model.weights=FILE or model.pretrained=TAG")
    known = open_clip.get_pretrained_cfg(params.architecture or "", params.pretrained)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(params.architecture or "")) or "none"
        raise UserError(f"model.pretrained={params.pretrained} is unknown for {params.architecture}: known are {tags}")
    try:
        return Path(open_clip.download_pretrained(known, cache_dir=os.environ.get("XAI_WEIGHTS")))
    except Exception as error:
        raise UserError(
            f"the weights {params.pretrained} of {params.architecture} could not be fetched "
            f"({type(error).__name__}); without a network give the file: model.weights=open_clip_model.safetensors"
        ) from error


def read_base_weights(params: ClipParams, path: Path) -> dict[str, Tensor]:
    """Read open_clip weights (safetensors, or a torch file without code) and check that they fit the model."""
    tensors = read_weights(path, what="base weights", require_finite=True).tensors
    expected = {name: value.shape for name, value in build_clip(params).state_dict().items()}
    return match_weights(tensors, expected, what=f"base weights {path}", model=params.name)


def load_base(params: ClipParams, tensors: dict[str, Tensor]) -> CLIP:
    """A CLIP with its base weights, frozen and in evaluation mode."""
    clip = build_clip(params)
    clip.load_state_dict(tensors)
    return clip.eval().requires_grad_(False)


_WORDS = """
an the of in on with and photo picture image drawing sketch scan art painting handwritten handwriting printed
written drawn blurred small large bold bright dark digit number letter figure character glyph symbol numeral
texture centred scattered
"""
_CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation[:-1]
_TOKENS = (string.punctuation[-1], *_WORDS.split(), *_CHARACTERS)
_PAD, _START = 0, 1
_WORD = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")


class WordTokenizer:
    """Captions to token numbers for the embedded CLIP, in open_clip's calling convention.

    A word outside the vocabulary is spelled in characters, so that every class name has tokens. The end token has the
    highest number, because open_clip reads the text embedding at the position of the largest token.
    """

    def __init__(self, context_length: int = 16) -> None:
        self.context_length = context_length
        self._ids = {token: i for i, token in enumerate(_TOKENS, start=2)}
        self._end = len(self._ids) + 2

    @property
    def vocab_size(self) -> int:
        """Number of token numbers in use."""
        return self._end + 1

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Tokenise captions.

        Args:
            texts: One caption or several.

        Returns:
            Token numbers [B, context_length], started, ended and padded; a caption that is too long loses its tail.
        """
        texts = [texts] if isinstance(texts, str) else texts
        rows = torch.full((len(texts), self.context_length), _PAD)
        for row, text in zip(rows, texts, strict=True):
            ids = [*[_START, *self._spell(text)][: self.context_length - 1], self._end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def _spell(self, text: str) -> list[int]:
        ids: list[int] = []
        for word in _WORD.findall(text.lower()):
            known = [word] if word in self._ids else [c for c in word if c in self._ids]
            ids.extend(self._ids[token] for token in known)
        return ids
