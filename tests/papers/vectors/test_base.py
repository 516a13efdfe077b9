"""Base weights: what they are made with changes nothing of them."""

from pathlib import Path

import pytest

from tests.classifiers.tiny import MODEL, runtime
from xai.papers.vectors import base


def test_glyphs_drawn_on_a_core_that_is_left_give_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    loader = base.DataLoader

    def recording(*args: object, **kwargs: object) -> object:
        asked.append(int(kwargs["num_workers"]))  # type: ignore[call-overload]
        return loader(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(base, "DataLoader", recording)
    made = []
    for cores in (1, 9):
        monkeypatch.setattr(base, "own_cores", lambda cores=cores: cores)
        made.append(base.base_weights(runtime(tmp_path / str(cores)), MODEL, 0).file("base.safetensors").read_bytes())
    assert made[0] == made[1]
    assert (asked[0], asked[-1]) == (0, 1)
