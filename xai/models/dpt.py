"""A dense decoder after DPT (Ranftl et al. 2021), told at every level which class to explain."""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.core.settings import FieldError, settings
from xai.models.evidence import CHANNELS

Conditioning = Literal["concat", "product"]
Norm = Literal["batch", "group"]
CONDITIONINGS: tuple[Conditioning, ...] = get_args(Conditioning)
NORMS: tuple[Norm, ...] = get_args(Norm)
EvenWidth = Annotated[int, Field(ge=2, le=2**14, multiple_of=2)]


@settings
class DecoderParams:
    """Shape of the decoder; the values named are the paper's.

    Args:
        channels: Of the projected levels (256).
        fusion: Channels of the fusion blocks (128).
        head: Channels that the head ends with (32), and those of its output: four times as many (128).
        refinement: Channels of the refinement block (64).
        resize: Factor by which each level is resized, one a level: (4, 2, 1, 0.5).
        conditioning: How the class enters: `concat` (the class embedding beside every patch feature) or `product` (the
            same, and beside them the product of both).
        norm: `batch` (the paper's) or `group`, which needs no other images.
        dropout: Of whole channels, before the refinement block (0.1).
        pixels: Channels of a stem that looks at the image itself, at full resolution (0: there is none in the paper). A
            backbone's features are coarser than pixels, and which of a patch's pixels differ from the reference they
            do not tell.
        gradient: Whether the stem sees the gradient of the class's logit beside the image (not in the paper). It costs
            a backward pass of the classifier for each map.
        scale: What the map is multiplied by at the end (1): Sinkhorn's sharpness is the scale of the map.
    """

    channels: EvenWidth
    fusion: EvenWidth
    head: EvenWidth
    refinement: EvenWidth
    resize: Annotated[tuple[Annotated[float, Field(gt=0, le=16)], ...], Field(min_length=1, max_length=16)]
    conditioning: Conditioning = "concat"
    norm: Norm = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    pixels: Annotated[int, Field(ge=0, le=4096)] = 0
    gradient: bool = False
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0

    def __post_init__(self) -> None:
        """Refuse a stem that is asked for and not there."""
        if self.gradient and not self.pixels:
            raise FieldError("gradient", "is for the stem that looks at pixels: set pixels=16")


class DptDecoder(nn.Module):
    """Levels of features and a class to one map of the size of the image.

    Args:
        params: Its shape.
        channels: D of each level.
        classes: C, how many classes can be asked about.

    Raises:
        UserError: Where `resize` has not one factor a level.
    """

    def __init__(self, params: DecoderParams, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        if len(params.resize) != len(channels):
            raise UserError(
                f"decoder.resize has {len(params.resize)} factors for {len(channels)} feature levels: give one a level"
            )
        wide, fused = params.channels, params.fusion
        self.embedding = nn.Embedding(classes, channels[-1])
        self.readouts = nn.ModuleList(_Readout(width, channels[-1], params.conditioning) for width in channels)
        self.projections = nn.ModuleList(
            nn.Sequential(_norm(params.norm, width), nn.Conv2d(width, wide, 1), nn.ReLU()) for width in channels
        )
        self.narrow = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, fused, 3, padding=1, bias=False), nn.ReLU()) for _ in channels
        )
        self.fusions = nn.ModuleList(_Fusion(fused) for _ in channels)
        self.last = nn.Conv2d(fused, fused, 3, padding=1)
        self.head = nn.Sequential(
            nn.Conv2d(fused, fused // 2, 3, padding=1), nn.Upsample(scale_factor=2, mode="bilinear")
        )
        self.output = nn.Sequential(
            nn.Conv2d(fused // 2, params.head, 3, padding=1), nn.ReLU(), nn.Conv2d(params.head, 4 * params.head, 1)
        )
        self.stem = _Stem(3 + CHANNELS * params.gradient, params.pixels, 4 * params.head) if params.pixels else None
        self.refinement = _refinement(params)
        self.resize, self.scale = params.resize, params.scale

    def forward(
        self, levels: Sequence[Tensor], targets: Tensor, images: Tensor, evidence: Tensor | None = None
    ) -> Tensor:
        """A map [B, H, W] in float32; higher is more important.

        Args:
            levels: Features [B, D, h, w], the finest first.
            targets: Classes [B].
            images: [B, 3, H, W] in [0, 1], whose size the map has.
            evidence: [B, 8, H, W], where `gradient` is set; see `xai.models.evidence`.
        """
        classes = self.embedding(targets)
        maps = []
        for features, factor, readout, project, narrow in zip(
            levels, self.resize, self.readouts, self.projections, self.narrow, strict=True
        ):
            wide = project(readout(features, classes))
            maps.append(narrow(F.interpolate(wide, scale_factor=factor, mode="bilinear") if factor != 1 else wide))
        fused = None
        for features, fusion in zip(reversed(maps), reversed(self.fusions), strict=True):
            fused = fusion(features, fused)
        dense = self.output(F.interpolate(self.head(self.last(fused)), images.shape[-2:], mode="bilinear"))
        if self.stem is not None:
            seen = [2 * images - 1] + ([] if evidence is None else [evidence])
            dense = self.stem(dense, torch.cat(seen, dim=1))
        return self.refinement(dense)[:, 0].float() * self.scale


class _Readout(nn.Module):
    """A class embedding beside every patch feature, and both back to the width of the features."""

    def __init__(self, width: int, embedding: int, conditioning: str) -> None:
        super().__init__()
        self.match = nn.Linear(embedding, width) if conditioning == "product" else None
        self.project = nn.Linear(width + embedding + (width if self.match else 0), width)

    def forward(self, features: Tensor, classes: Tensor) -> Tensor:
        """Features [B, D, h, w] and classes [B, E] to [B, D, h, w]."""
        patches = features.flatten(2).transpose(1, 2)
        beside = [patches, classes[:, None].expand(-1, patches.shape[1], -1)]
        if self.match is not None:
            beside.append(patches * self.match(classes)[:, None])
        mixed = F.gelu(self.project(torch.cat(beside, dim=2)))
        return mixed.transpose(1, 2).reshape(features.shape)


class _Fusion(nn.Module):
    """Add the level below, enlarged, to this one; with a residual unit before and after."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before, self.after = _ResidualUnit(channels), _ResidualUnit(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor, coarser: Tensor | None) -> Tensor:
        """Features [B, D, h, w] and those of the coarser level, if there is one, to twice the size: [B, D, 2h, 2w]."""
        if coarser is not None:
            features = F.interpolate(coarser, features.shape[-2:], mode="bilinear") + self.before(features)
        fused = F.interpolate(self.after(features), scale_factor=2, mode="bilinear")
        projected: Tensor = self.project(fused)
        return projected


class _ResidualUnit(nn.Module):
    """Two 3 x 3 convolutions, each after its activation, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, D, h, w] to the same shape."""
        changed: Tensor = self.body(features)
        return features + changed


class _Stem(nn.Module):
    """Scales and shifts features pixel by pixel, by what is seen there (FiLM, Perez et al. 2018)."""

    def __init__(self, seen: int, width: int, channels: int) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(seen, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, 2 * channels, 1))

    def forward(self, features: Tensor, seen: Tensor) -> Tensor:
        """Features [B, D, H, W], and what is seen at full resolution, [B, K, H, W], to features [B, D, H, W]."""
        scale, shift = self.look(seen).chunk(2, dim=1)
        return features * (1 + scale) + shift


def _refinement(params: DecoderParams) -> nn.Sequential:
    wide, narrow = 4 * params.head, params.refinement
    last = nn.Conv2d(narrow, 1, 3, padding=1)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(
        nn.Dropout2d(params.dropout),
        _norm(params.norm, wide),
        *(nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), _norm(params.norm, wide), nn.GELU()),
        *(nn.Conv2d(wide, narrow, 1, bias=False), _norm(params.norm, narrow), nn.GELU()),
        *(nn.Conv2d(narrow, narrow, 3, padding=1, bias=False), _norm(params.norm, narrow), nn.GELU()),
        last,
    )


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(1, channels)
