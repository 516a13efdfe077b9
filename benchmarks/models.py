"""What is measured: CLIP classifiers with random weights, in the library's own forward pass and as ours."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from benchmarks.setup import Setup
from xai.core.composing import shipped
from xai.core.settings import build
from xai.games import PatchGame
from xai.models.factory import ClipParams, build_clip, build_explainer
from xai.models.maskable import Removal
from xai.shapley.coalitions import paired

_ROUNDING = 5e-3
"""Logits are cosines times about 14; float32 computes them to within less than this."""


@dataclass(frozen=True)
class Model:
    """A classifier with random weights.

    Args:
        params: Its towers.
        classes: C, columns of its random head.
    """

    params: ClipParams
    classes: int

    @property
    def players(self) -> int:
        """M, the number of patches."""
        return self.params.grid**2


def configured(name: str, **changes: Any) -> ClipParams:
    """The model of a file in conf/model, with random weights and, where asked for, another shape."""
    values = shipped(f"model/{name}")
    known = {field.name for field in dataclasses.fields(ClipParams)}
    own = {key: value for key, value in values.items() if key in known} | {"pretrained": None, "random_weights": True}
    return build(ClipParams, own | changes, "model")


def images(model: Model, count: int, setup: Setup) -> Tensor:
    """Images [count, 3, H, W] in [0, 1] whose patches differ in colour and in texture."""
    generator = torch.Generator().manual_seed(3)
    side, grid = model.params.image_size, model.params.grid
    colours = F.interpolate(torch.rand(count, 3, grid, grid, generator=generator), size=(side, side))
    texture = torch.rand(count, 3, side, side, generator=generator)
    return (0.6 * colours + 0.4 * texture).to(setup.device)


class Reference(nn.Module):
    """The classifier as open_clip computes it, and nothing of ours: the floor, and what shap and captum are given.

    Args:
        clip: Its visual tower is taken.
        head: [K, C], unit columns.
        params: What the tower was made from.
    """

    head: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, clip: CLIP, head: Tensor, params: ClipParams) -> None:
        super().__init__()
        self.visual = clip.visual
        self.scale = float(clip.logit_scale.detach().exp())
        self.register_buffer("head", head)
        self.register_buffer("mean", torch.tensor(params.mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(params.std).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C] of images [B, 3, H, W] in [0, 1]."""
        return self.logits(self.visual((images - self.mean) / self.std))

    def logits(self, features: Tensor) -> Tensor:
        """Logits [B, C] of what the tower gives, [B, K]."""
        return self.scale * F.normalize(features, dim=-1) @ self.head

    def embed(self, images: Tensor) -> Tensor:
        """What the first block of the tower sees: [B, 1 + M, D], the class token first."""
        return self.visual._embeds((images - self.mean) / self.std)

    def attend(self, tokens: Tensor, hidden: Tensor, classes: int = 1) -> Tensor:
        """Logits [B, classes, C] of the class tokens that come first in sequences [B, L, D].

        Args:
            tokens: After the position embedding.
            hidden: Bool [B, L, L], True where row i must not attend to column j.
            classes: Class tokens in a sequence.
        """
        heads = self.visual.transformer.resblocks[0].attn.num_heads
        mask = torch.zeros_like(hidden, dtype=tokens.dtype).masked_fill(hidden, float("-inf"))
        seen = self.visual.transformer(tokens, attn_mask=mask.repeat_interleave(heads, 0))
        return self.logits(self.visual.ln_post(seen[:, :classes]) @ self.visual.proj)

    def masked(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Logits [B, C] with removed patches masked out of every attention; all tokens are computed.

        Args:
            tokens: [B, 1 + M, D].
            keep: Bool [B, M], True is visible.
        """
        hidden = ~F.pad(keep, (1, 0), value=True)[:, None, :].expand(-1, tokens.shape[1], -1)
        return self.attend(tokens, hidden)[:, 0]

    def packed(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Logits [B, 2, C] of a coalition and of its complement, which share one sequence of M patch tokens.

        Args:
            tokens: [B, 1 + M, D].
            keep: Bool [B, M], the first coalition.
        """
        pair = torch.cat([tokens[:, :1], tokens], dim=1)
        side = F.pad(F.pad(keep, (1, 0), value=False), (1, 0), value=True)
        return self.attend(pair, side[:, :, None] != side[:, None, :], classes=2)


def reference(model: Model, setup: Setup) -> Reference:
    """The library's own forward pass, frozen and in evaluation mode."""
    return Reference(*_parts(model), model.params).to(setup.device).eval().requires_grad_(False)


Begin = Callable[[Tensor, Tensor], PatchGame]
"""Begins a game: of images [B, 3, H, W] in [0, 1] and the logits of their classes [B]."""


def checked_game(model: Model, network: Reference, removal: Removal, setup: Setup) -> Begin:
    """The same network as ours, once its games have been seen to give what the library's own forward pass gives.

    Args:
        model: What both are made from.
        network: The library's; `tokens` is compared with masking the removed patches out of every attention, `pixels`
            with painting them.
        removal: By `tokens`, or by `pixels` with reference `mean`.
        setup: The device; the comparison is in float32 whatever precision is measured.

    Raises:
        ValueError: Where the values differ by more than rounding.
    """
    clip, head = _parts(model)
    classifier = build_explainer(model.params, clip, head, removal).to(setup.device).eval().requires_grad_(False)
    picture = images(model, 1, setup)
    target = targets_of(network, picture)
    design = paired(model.players, 8, torch.Generator().manual_seed(5)).coalitions.to(setup.device)
    with torch.inference_mode():
        if removal.kind == "tokens":
            expected = network.masked(network.embed(picture).expand(len(design), -1, -1), design)
        else:
            expected = network(paint(model, picture.expand(len(design), -1, -1, -1), design))

    def begin(pictures: Tensor, targets: Tensor) -> PatchGame:
        return PatchGame(classifier, pictures, targets, output="logit")

    off = (begin(picture, target).value(design)[0] - expected[:, target[0]]).abs().max().item()
    if off > _ROUNDING:
        raise ValueError(f"values of the game are off by {off:.2g} from the library's own, more than rounding explains")
    return begin


def paint(model: Model, images: Tensor, keep: Tensor) -> Tensor:
    """Images [B, 3, H, W] with the patches that `keep` [B, M] leaves out painted with the model's mean."""
    grid, patch = model.params.grid, model.params.patch_size
    visible = keep.to(images.device).reshape(-1, 1, grid, grid).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    mean = torch.tensor(model.params.mean, device=images.device).reshape(1, 3, 1, 1)
    return torch.where(visible, images, mean)


def _parts(model: Model) -> tuple[CLIP, Tensor]:
    clip = build_clip(model.params)
    generator = torch.Generator().manual_seed(4)
    head = torch.randn(clip.visual.proj.shape[1], model.classes, generator=generator)
    return clip, F.normalize(head, dim=0)


def targets_of(network: Reference, images: Tensor) -> Tensor:
    """The class [B] that each image [B, 3, H, W] is taken for."""
    with torch.inference_mode():
        return network(images).argmax(1)


def best_batches(models: Sequence[Model], sizes: Sequence[int], setup: Setup) -> list[int]:
    """For each model the size of batch in which plain forward passes are fastest, of a few sizes that fit.

    Sizes take turns at the same number of images until five seconds are over, and the median counts: the best of many
    short times would favour small batches on a machine that others use too.
    """
    setup.confine()
    found = []
    for model in models:
        network, seconds = reference(model, setup), {size: list[float]() for size in sizes}
        with torch.inference_mode(), setup.precision():
            network(images(model, min(sizes), setup))
            while seconds and sum(map(sum, seconds.values())) < 5:
                for size in list(seconds):
                    try:
                        seconds[size].append(_seconds(network, images(model, size, setup), max(sizes) // size, setup))
                    except torch.OutOfMemoryError:
                        del seconds[size]
        found.append(min(seconds, key=lambda size: statistics.median(seconds[size]), default=min(sizes)))
    return found


def _seconds(network: Reference, batch: Tensor, passes: int, setup: Setup) -> float:
    setup.synchronise()
    start = time.perf_counter()
    for _ in range(passes):
        network(batch)
    setup.synchronise()
    return time.perf_counter() - start
