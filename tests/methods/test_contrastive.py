import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor

from tests.models.tiny_clip import PARAMS, TOWERS
from xai.core.optimisation import FitParams
from xai.data.captions import CaptionedGlyphs
from xai.methods.contrastive import ContrastivePretraining, contrastive_loss
from xai.models.factory import build_clip, build_tokenizer

FIT = FitParams(1, 4, 1e-3, 0.0, 0.1, 1.0)


def loop(similarity: Tensor, owner: list[int]) -> float:
    """Both directions, written out; logarithms and sums in double precision."""
    rows = similarity.tolist()
    images, texts = len(rows), len(rows[0])
    image_to_text = 0.0
    for b in range(images):
        image_to_text -= math.log(math.exp(rows[b][owner[b]]) / sum(math.exp(v) for v in rows[b])) / images
    text_to_image = 0.0
    for t in range(texts):
        whole = sum(math.exp(rows[b][t]) for b in range(images))
        own = [b for b in range(images) if owner[b] == t]
        text_to_image -= sum(math.log(math.exp(rows[b][t]) / whole) for b in own) / len(own) / texts
    return (image_to_text + text_to_image) / 2


def test_with_one_image_a_caption_it_is_clips_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(6, 9, generator=generator).double(), dim=1) for _ in range(2))
    expected = ClipLoss()(image, text, torch.tensor(12.0).double())
    torch.testing.assert_close(contrastive_loss(12.0 * image @ text.T, torch.arange(6)), expected)
    # Whichever image owns which caption.
    order = torch.tensor([2, 0, 5, 1, 4, 3])
    torch.testing.assert_close(contrastive_loss(12.0 * image[order] @ text.T, order), expected)


@pytest.mark.parametrize("owner", [[0, 0, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0], [3, 1, 0, 2, 1, 0]])
def test_with_shared_captions_it_is_the_loop(owner: list[int]) -> None:
    similarity = torch.randn(6, max(owner) + 1, generator=torch.Generator().manual_seed(1)).double() * 3
    found = contrastive_loss(similarity, torch.tensor(owner))
    assert float(found) == pytest.approx(loop(similarity, owner), rel=1e-12)


def batch() -> CaptionedGlyphs:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.rand(4, 3, 16, 16, generator=generator)
    captions = build_tokenizer(PARAMS)(["a photo of the number 7.", "the letter a", "a printed z"])
    focus = torch.stack([torch.randperm(16, generator=generator)[:5] for _ in range(4)])
    return CaptionedGlyphs(pixels, captions, torch.tensor([2, 0, 0, 1]), focus)


@pytest.mark.filterwarnings("ignore:You are trying to .self.log")
@pytest.mark.parametrize("focused", [0, 1])
def test_a_step_is_the_loss_between_images_and_captions_and_sees_the_focus_only(focused: int) -> None:
    clip, given = build_clip(PARAMS, 1).eval(), batch()
    module = ContrastivePretraining(clip, FIT, focused, list(PARAMS.mean), list(PARAMS.std))
    found = module.training_step(given, 0)
    normalised = torch.stack([(given.pixels[:, c] - PARAMS.mean[c]) / PARAMS.std[c] for c in range(3)], dim=1)
    if focused:
        tokens = clip.visual._embeds(normalised)
        chosen = [[0, *(1 + patch for patch in patches)] for patches in given.focus.tolist()]
        seen = torch.stack([row[places] for row, places in zip(tokens, chosen, strict=True)])
        image = F.normalize(clip.visual.ln_post(clip.visual.transformer(seen)[:, 0]) @ clip.visual.proj, dim=1)
    else:
        image = clip.encode_image(normalised, normalize=True)
    text = clip.encode_text(given.captions, normalize=True)
    similarity = (clip.logit_scale.exp() * image @ text.T).detach()
    assert float(found.detach()) == pytest.approx(loop(similarity, given.owner.tolist()), rel=1e-4)
    found.backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is not None for value in clip.parameters())
    assert image.shape == (4, TOWERS.embed_dim)
