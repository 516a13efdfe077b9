import itertools

import torch

from xai.data.glyphs import FONTS, GLYPHS, draw_glyphs, master_glyphs


def test_every_font_draws_every_glyph_within_its_page() -> None:
    drawings = master_glyphs()
    assert drawings.shape == (len(FONTS), len(GLYPHS), 48, 48)
    assert len(set(GLYPHS)) == 36
    assert drawings.min() == 0
    assert drawings.max() <= 1
    ink = drawings > 0.1
    assert ink.flatten(2).sum(2).min() > 60
    for font, glyph in itertools.product(range(len(FONTS)), range(len(GLYPHS))):
        rows, columns = ink[font, glyph].any(1).nonzero()[:, 0], ink[font, glyph].any(0).nonzero()[:, 0]
        sides = [int(line[-1] - line[0]) + 1 for line in (rows, columns)]
        assert 28 <= max(sides) <= 36
        for line in (rows, columns):
            assert abs(int(line[0] + line[-1]) - 47) <= 6


def test_glyphs_of_a_font_and_fonts_differ() -> None:
    drawings = master_glyphs().flatten(2)
    for font in drawings:
        distances = torch.cdist(font, font) + 100 * torch.eye(len(GLYPHS))
        assert distances.min() > 3  # O and 0 of one font are the closest
    fonts = drawings.flatten(1)
    assert (torch.cdist(fonts, fonts) + 1e3 * torch.eye(len(FONTS))).min() > 1


def test_drawing_depends_on_the_generator_alone_and_stays_in_range() -> None:
    labels = torch.arange(36).repeat(8)
    first, again = (draw_glyphs(labels, 20, torch.Generator().manual_seed(5)) for _ in range(2))
    other = draw_glyphs(labels, 20, torch.Generator().manual_seed(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (288, 20, 20)
    assert first.min() >= 0
    assert first.max() <= 1
    assert (first.amax((1, 2)) > 0.5).all()
    assert (first.flatten(1) > 0.25).sum(1).min() > 5


def test_what_is_drawn_is_the_glyph_asked_for() -> None:
    """An average over many distortions is nearest to the master drawings of its own glyph."""
    labels = torch.arange(36).repeat_interleave(60)
    drawn = draw_glyphs(labels, 48, torch.Generator().manual_seed(0)).reshape(36, 60, -1).mean(1)
    masters = master_glyphs().mean(0).flatten(1)
    drawn, masters = (x - x.mean(0) for x in (drawn, masters))
    similarity = torch.nn.functional.normalize(drawn, dim=1) @ torch.nn.functional.normalize(masters, dim=1).T
    assert (similarity.argmax(1) == torch.arange(36)).float().mean() > 0.9


def test_a_draw_does_not_touch_the_masters_or_the_global_generator() -> None:
    before, state = master_glyphs().clone(), torch.random.get_rng_state()
    draw_glyphs(torch.tensor([0, 9]), 8, torch.Generator().manual_seed(0))
    assert torch.equal(before, master_glyphs())
    assert torch.equal(state, torch.random.get_rng_state())
