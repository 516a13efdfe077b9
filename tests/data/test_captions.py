import pytest
import torch
from torch import Tensor

from xai.data import captions
from xai.data.captions import GlyphStream
from xai.data.glyphs import GLYPHS
from xai.data.prompts import GLYPH_CAPTIONS as CAPTIONS
from xai.data.scatter import ScatterParams

PLAIN = {"ground": 0.0, "ground_spread": 0.0, "texture": 0.0, "noise": 0.0}


class Notebook:
    """A tokenizer that gives each text the number of its line."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: list[str]) -> Tensor:
        self.texts += texts
        return torch.arange(len(self.texts) - len(texts), len(self.texts))[:, None]


def stream(tokenizer: Notebook, scene: ScatterParams, seed: int = 1, patch: int = 7, batch: int = 12) -> GlyphStream:
    return GlyphStream(tokenizer, scene, patch, batch, 100, seed)


def same(a: captions.CaptionedGlyphs, b: captions.CaptionedGlyphs) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("pixels", "owner", "focus"))


def test_any_step_can_be_drawn_again_in_any_order() -> None:
    book, scene = Notebook(), ScatterParams()
    forwards = [stream(book, scene)[step] for step in range(4)]
    told, book.texts = book.texts, []
    backwards = [stream(book, scene)[step] for step in (3, 2, 1, 0)]
    assert all(same(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert sorted(told) == sorted(book.texts)
    assert not same(forwards[0], forwards[1])
    assert not same(forwards[0], stream(book, scene, seed=2)[0])
    assert len(stream(book, scene)) == 100


def test_each_caption_names_the_glyph_of_the_scenes_it_owns(monkeypatch: pytest.MonkeyPatch) -> None:
    def branded(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
        return ((labels + 1) / 40)[:, None, None].expand(-1, size, size)

    monkeypatch.setattr(captions, "draw_glyphs", branded)
    book = Notebook()
    steps = stream(book, ScatterParams(**PLAIN), batch=60)
    seen = set()
    for step in range(5):
        book.texts = []
        batch = steps[step]
        glyphs = [GLYPHS[round(float(image.max()) * 40) - 1] for image in batch.pixels]
        assert len(book.texts) == len(set(glyphs)) == len(batch.captions)
        for glyph, owner in zip(glyphs, batch.owner.tolist(), strict=True):
            text = book.texts[int(batch.captions[owner])]
            assert text in {caption.format(glyph) for caption in CAPTIONS}
        seen |= {text.replace(f" {g}", " {}") for text in book.texts for g in GLYPHS if f" {g}" in text}
    assert set(CAPTIONS) <= seen


@pytest.mark.parametrize(
    ("scene", "patch"),
    [
        (ScatterParams(**PLAIN), 7),
        (ScatterParams(**PLAIN, canvas=42, cells=4, object_size=9, jitter=1), 7),
        (ScatterParams(**PLAIN, canvas=48, cells=3, object_size=14, jitter=2), 6),
        (ScatterParams(**PLAIN, canvas=42, cells=1, object_size=30, jitter=12), 7),
    ],
)
def test_focus_holds_every_patch_with_ink_and_one_place_anywhere(scene: ScatterParams, patch: int) -> None:
    side = scene.canvas // patch
    strays = set()
    for step in range(5):
        batch = stream(Notebook(), scene, patch=patch, batch=40)[step]
        assert batch.focus.min() >= 0
        assert batch.focus.max() < side * side
        for image, focus in zip(batch.pixels[:, 0], batch.focus.tolist(), strict=True):
            inked = {int(r) // patch * side + int(c) // patch for r, c in (image > 0.01).nonzero().tolist()}
            assert inked <= set(focus[:-1])
            strays.add(focus[-1])
    assert len(strays) > side * side / 2


def test_pixels_are_grey_rgb_and_object_and_patches_are_far_fewer_than_all() -> None:
    batch = stream(Notebook(), ScatterParams())[0]
    assert batch.pixels.shape == (12, 3, 42, 42)
    assert torch.equal(batch.pixels[:, 0], batch.pixels[:, 2])
    assert batch.focus.shape == (12, 10)
