"""A stream of captioned glyph scenes, addressed by step: any step can be drawn again, which makes runs resumable."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from xai.data.glyphs import GLYPHS, draw_glyphs
from xai.data.prompts import GLYPH_CAPTIONS
from xai.data.scatter import ScatterParams, scatter

Tokenizer = Callable[[list[str]], Tensor]
"""Captions to token numbers [T, L]."""


class CaptionedGlyphs(NamedTuple):
    """One pre-training batch: B scenes and the T distinct captions they own.

    `pixels` [B, 3, H, W] in [0, 1]; `captions` token numbers [T, L]; `owner` [B] the caption of each scene; `focus`
    [B, k] the numbers of the patches around the object, and of one other.
    """

    pixels: Tensor
    captions: Tensor
    owner: Tensor
    focus: Tensor


class GlyphStream(Dataset[CaptionedGlyphs]):
    """Step number to batch.

    Args:
        tokenizer: Of the model to be trained.
        scene: The layout of the scenes.
        patch_size: Side of a patch in pixels; it divides the canvas.
        batch_size: Scenes a step.
        steps: Length of the stream.
        seed: A different seed is a different stream.
    """

    def __init__(
        self, tokenizer: Tokenizer, scene: ScatterParams, patch_size: int, batch_size: int, steps: int, seed: int
    ) -> None:
        self._tokenizer, self._scene, self._patch = tokenizer, scene, patch_size
        self._batch_size, self._steps, self._seed = batch_size, steps, seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> CaptionedGlyphs:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        labels = torch.randint(len(GLYPHS), (self._batch_size,), generator=generator)
        scene = scatter(draw_glyphs(labels, self._scene.object_size, generator), self._scene, generator)
        distinct, owner = labels.unique(return_inverse=True)
        choice = torch.randint(len(GLYPH_CAPTIONS), (len(distinct),), generator=generator)
        texts = [GLYPH_CAPTIONS[c].format(GLYPHS[g]) for g, c in zip(distinct.tolist(), choice.tolist(), strict=True)]
        pixels = scene.images[:, None].expand(-1, 3, -1, -1)
        return CaptionedGlyphs(pixels, self._tokenizer(texts), owner, self._focus(scene.corners, generator))

    def _focus(self, corners: Tensor, generator: torch.Generator) -> Tensor:
        """The patches of the object's cell and one patch anywhere: [B, k]."""
        side, cell = self._scene.canvas // self._patch, self._scene.canvas // self._scene.cells
        first = corners // cell * cell // self._patch
        # A cell that begins inside a patch may reach into one more.
        steps = torch.arange(-(-cell // self._patch) + (cell % self._patch > 0))
        rows, columns = ((first[:, i, None] + steps).clamp(max=side - 1) for i in (0, 1))
        around = (rows[:, :, None] * side + columns[:, None, :]).flatten(1)
        return torch.cat([around, torch.randint(side * side, (len(corners), 1), generator=generator)], dim=1)
