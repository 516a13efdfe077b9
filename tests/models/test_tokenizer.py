import string

import torch

from xai.data.glyphs import GLYPHS
from xai.data.prompts import GLYPH_CAPTIONS as CAPTIONS
from xai.models.factory import WordTokenizer

PAD, START = 0, 1


def words(text: str) -> list[int]:
    """The numbers between start and end."""
    row = WordTokenizer()(text)[0].tolist()
    end = row.index(max(row))
    assert row[0] == START
    assert row[end] == WordTokenizer().vocab_size - 1
    assert set(row[end + 1 :]) <= {PAD}
    return row[1:end]


def test_the_end_token_has_the_highest_number_and_occurs_once_in_every_caption() -> None:
    tokenizer = WordTokenizer()
    texts = [caption.format(glyph) for caption in CAPTIONS for glyph in GLYPHS]
    rows = tokenizer([*texts, "", "word " * 50, "x" * 500])
    assert rows.shape == (len(texts) + 3, 16)
    assert (rows == tokenizer.vocab_size - 1).sum(1).eq(1).all()
    assert rows.max() == tokenizer.vocab_size - 1
    assert rows.min() == PAD
    assert rows.dtype == torch.long


def test_known_words_are_one_token_and_unknown_ones_are_spelled() -> None:
    assert len(words("a photo of the number")) == 5
    assert words("zebra") == [number for letter in "zebra" for number in words(letter)]
    assert words("a Photo") == words("A photo")
    assert words("photo.") == words("photo") + words(".")
    assert words("  photo \n of ") == words("photo of")
    assert words("42") == words("4") + words("2")


def test_every_character_in_use_has_a_number_of_its_own() -> None:
    characters = string.ascii_lowercase + string.digits + string.punctuation
    numbers = [words(character) for character in characters]
    assert all(len(number) == 1 for number in numbers)
    assert len({number[0] for number in numbers}) == len(characters)


def test_captions_of_different_glyphs_differ() -> None:
    for caption in CAPTIONS:
        rows = {tuple(words(caption.format(glyph))) for glyph in GLYPHS}
        assert len(rows) == len(GLYPHS)


def test_long_captions_lose_their_tail_and_foreign_signs_vanish() -> None:
    assert words("photo " * 30) == words("photo") * 14
    assert words("日本") == []
    assert words("") == []
    assert WordTokenizer(context_length=4)("a b c d").shape == (1, 4)
    assert WordTokenizer()([]).shape == (0, 16)
