"""What the tests of models share: a CLIP of a few thousand weights on a 4 x 4 grid, and its float64 twin."""

import torch
from torch import Tensor

from xai.models.clip import SelfExplainingClip
from xai.models.factory import ClipParams, SmallTowers, build_clip, build_explainer
from xai.models.maskable import Removal

TOWERS = SmallTowers(
    embed_dim=12, width=16, layers=2, head_width=8, text_width=8, text_layers=1, text_heads=2, position_scale=0.5
)
PARAMS = ClipParams("tiny", 16, 4, (0.5, 0.4, 0.3), (0.25, 0.3, 0.2), towers=TOWERS)
CLASSES = 5


def classifier(removal: Removal | None = None, params: ClipParams = PARAMS) -> SelfExplainingClip:
    """In float64; weights are scaled up so that attention is far from even."""
    clip = build_clip(params, seed=1)
    generator = torch.Generator().manual_seed(2)
    for value in clip.visual.parameters():
        value.data += 0.2 * torch.randn(value.shape, generator=generator)
    head = torch.nn.functional.normalize(torch.randn(12, CLASSES, generator=generator), dim=0)
    return build_explainer(params, clip, head, removal).double().eval().requires_grad_(False)


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def coalitions(rows: int, seed: int = 0, players: int = 16) -> Tensor:
    """Ragged coalitions, the empty and the full one among them."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(rows, players, generator=generator) < torch.rand(rows, 1, generator=generator)
    keep[0], keep[1] = False, True
    return keep
