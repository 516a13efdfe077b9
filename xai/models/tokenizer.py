"""A tokenizer for the embedded CLIP: a small fixed vocabulary of words, and single characters for all the rest."""

import re
import string
from collections.abc import Sequence

import torch
from torch import Tensor

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
    """Captions to token numbers, in open_clip's calling convention.

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
