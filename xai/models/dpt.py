"""A dense decoder after DPT (Ranftl et al. 2021), told at every level which class to explain.

It computes in float32 whatever autocast says: a map is read by the order of its values.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.core.settings import FieldError, settings
from xai.models.evidence import Look, even_sums
from xai.models.evidence import channels as evidence_channels
from xai.models.maskable import exact

Conditioning = Literal["concat", "product"]
Norm = Literal["batch", "group"]
Resampling = Literal["bilinear", "learned"]
EvenWidth = Annotated[int, Field(ge=2, le=2**14, multiple_of=2)]


@settings
class DecoderParams:
    """Shape of the decoder; the values named are the paper's.

    What `resampling` and the settings after it have as a default is this project's own, and what files of earlier
    versions were made with; the published decoder is `learned`, and the opposite of each default.

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
        gradient: Whether the stem sees the gradient of the class's logit beside the image, for a backward pass of the
            classifier a map; `path`: gradients on the way from each reference, for twelve. Not in the paper.
        skip: Whether what `gradient` shows is also added to the map, beside what the decoder draws: the sums over the
            channels, each times a gain that is learned and starts at one part in as many. Not in the paper.
        scale: What the map is multiplied by at the end (1): Sinkhorn's sharpness is the scale of the map.
        resampling: How levels are resized: `bilinear`, or `learned` by transposed convolutions to larger and a strided
            one to smaller sizes.
        align_corners: Whether bilinear steps keep the corners where they are.
        rectify: ReLU after the 1 x 1 convolution of a fusion, and after the last before the refinement block.
        unit_bias: Whether the convolutions of residual units have a bias.
        idle_unit: Whether the coarsest fusion has a residual unit for the level below it, which there is not.
        kaiming: Start weights after He et al. (2015), normal and by fan in, and biases at 0; else PyTorch's.
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
    gradient: Look = False
    skip: bool = False
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    resampling: Resampling = "bilinear"
    align_corners: bool = False
    rectify: bool = False
    unit_bias: bool = True
    idle_unit: bool = True
    kaiming: bool = False

    def __post_init__(self) -> None:
        """Refuse a stem that is asked for and not there, and what no convolution resizes to."""
        if self.gradient and not self.pixels:
            raise FieldError("gradient", "is for the stem that looks at pixels: set pixels=16")
        if self.skip and not self.gradient:
            raise FieldError("skip", "adds what gradient shows: set gradient=path, or gradient=true")
        whole = all(float(max(factor, 1 / factor)).is_integer() for factor in self.resize)
        if self.resampling == "learned" and not whole:
            raise FieldError("resize", "with resampling=learned takes whole factors and their inverses: 4, 2, 1, 0.5")


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
        coarsest = len(channels) - 1
        self.fusions = nn.ModuleList(
            _Fusion(params, meets_coarser=params.idle_unit or level < coarsest) for level in range(len(channels))
        )
        self.last = nn.Conv2d(fused, fused, 3, padding=1)
        self.head = nn.Sequential(
            nn.Conv2d(fused, fused // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=params.align_corners),
        )
        self.output = nn.Sequential(
            nn.Conv2d(fused // 2, params.head, 3, padding=1), nn.ReLU(), nn.Conv2d(params.head, 4 * params.head, 1)
        )
        if params.rectify:
            self.output.append(nn.ReLU())
        self.stem = (
            _Stem(3 + evidence_channels(params.gradient), params.pixels, 4 * params.head) if params.pixels else None
        )
        self.refinement = _refinement(params)
        self.look: Look = params.gradient
        self.gains = nn.Parameter(even_sums(params.gradient)) if params.skip else None
        self.resize = nn.ModuleList(_resize(params, factor) for factor in params.resize)
        self.align_corners, self.scale = params.align_corners, params.scale
        if params.kaiming:
            self.apply(_start_as_he)
            _start_small(self.refinement[-1])

    def forward(
        self, levels: Sequence[Tensor], targets: Tensor, images: Tensor, evidence: Tensor | None = None
    ) -> Tensor:
        """A map [B, H, W] in float32; higher is more important.

        Args:
            levels: Features [B, D, h, w], the finest first.
            targets: Classes [B].
            images: [B, 3, H, W] in [0, 1], whose size the map has.
            evidence: Where `gradient` is set, what `xai.models.evidence.evidence` gives.
        """
        with exact(images):
            dense = self._decoded([level.to(self.last.weight) for level in levels], targets, images.shape[-2:])
            if self.stem is not None:
                seen = torch.cat([2 * images - 1] + ([] if evidence is None else [evidence]), dim=1)
                dense = self.stem(dense, seen.to(dense))
            drawn: Tensor = self.refinement(dense)[:, 0].float() * self.scale
            if self.gains is None or evidence is None:
                return drawn
            return drawn + _weighed(evidence, self.gains)

    def uncorrected(self, evidence: Tensor) -> Tensor:
        """The map [B, H, W] that training began with, where `skip` is set: what is seen, and nothing that was drawn."""
        return _weighed(evidence, even_sums(self.look).to(evidence))

    @torch.no_grad()
    def keep(self, share: float) -> None:
        """Keep a share s of what training made of the map, where `skip` is set: m_s = m_0 + s (m_1 - m_0).

        m_0 is `uncorrected` and m_1 the map as it is. Of both the last layer and the gains are linear factors, so that
        they alone change, and m_s costs what m_1 did.
        """
        if self.gains is None:
            raise ValueError("a decoder without skip has nothing that it corrects")
        for values in self.refinement[-1].parameters():
            values.mul_(share)
        self.gains.copy_(torch.lerp(even_sums(self.look).to(self.gains), self.gains, share))

    def _decoded(self, levels: Sequence[Tensor], targets: Tensor, size: Sequence[int]) -> Tensor:
        classes = self.embedding(targets)
        maps = [
            narrow(resize(project(readout(features, classes))))
            for features, readout, project, resize, narrow in zip(
                levels, self.readouts, self.projections, self.resize, self.narrow, strict=True
            )
        ]
        fused = None
        for features, fusion in zip(reversed(maps), reversed(self.fusions), strict=True):
            fused = fusion(features, fused)
        return self.output(_to_size(self.head(self.last(fused)), size, self.align_corners))


def _weighed(evidence: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("bkhw,k->bhw", evidence.float(), weights)


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

    def __init__(self, params: DecoderParams, *, meets_coarser: bool) -> None:
        super().__init__()
        channels, bias = params.fusion, params.unit_bias
        self.before = _ResidualUnit(channels, bias) if meets_coarser else None
        self.after = _ResidualUnit(channels, bias)
        self.project = nn.Conv2d(channels, channels, 1)
        self.align_corners, self.rectify = params.align_corners, params.rectify

    def forward(self, features: Tensor, coarser: Tensor | None) -> Tensor:
        """Features [B, D, h, w] and those of the coarser level, if there is one, to twice the size: [B, D, 2h, 2w]."""
        if coarser is not None:
            assert self.before is not None
            features = _to_size(coarser, features.shape[-2:], self.align_corners) + self.before(features)
        height, width = features.shape[-2:]
        fused: Tensor = self.project(_to_size(self.after(features), (2 * height, 2 * width), self.align_corners))
        return fused.relu() if self.rectify else fused


class _ResidualUnit(nn.Module):
    """Two 3 x 3 convolutions, each after its activation, beside the identity."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=bias),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, D, h, w] to the same shape."""
        return features + self.body(features)


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
    _start_small(last)
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


def _resize(params: DecoderParams, factor: float) -> nn.Module:
    """What resizes a level by a factor."""
    wide = params.channels
    if factor == 1:
        return nn.Identity()
    if params.resampling == "bilinear":
        return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=params.align_corners)
    if factor > 1:
        return nn.ConvTranspose2d(wide, wide, round(factor), round(factor))
    return nn.Conv2d(wide, wide, 3, round(1 / factor), padding=1)


def _to_size(features: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    return F.interpolate(features, tuple(size), mode="bilinear", align_corners=align_corners)


def _start_as_he(part: nn.Module) -> None:
    if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def _start_small(last: nn.Module) -> None:
    nn.init.normal_(last.weight, std=0.01)  # type: ignore[arg-type]
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
