from dataclasses import replace

import pytest

from tests.classifiers.bench import MODEL
from xai.core.errors import UserError
from xai.papers.vectors.base import ModelParams

REAL = ModelParams("real", 224, 32, (0.5,) * 3, (0.5,) * 3, architecture="ViT-B-32", pretrained="openai")


def test_random_weights_may_stand_beside_the_configured_tag() -> None:
    assert replace(REAL, random_weights=True).random_weights
    assert replace(REAL, weights="a.pt").weights == "a.pt"
    with pytest.raises(UserError, match=r"^weights=a.pt and random_weights=true exclude each other"):
        replace(REAL, random_weights=True, weights="a.pt")
    with pytest.raises(UserError, match=r"^name=real is an open_clip model"):
        replace(REAL, pretraining=MODEL.pretraining)
