from dataclasses import replace

import pytest

from tests.stages.bench import MODEL
from xai.core.errors import UserError
from xai.papers.vectors.base import ModelParams

REAL = ModelParams("real", 224, 32, (0.5,) * 3, (0.5,) * 3, architecture="ViT-B-32", pretrained="openai")


def test_random_weights_may_stand_beside_the_configured_tag() -> None:
    assert replace(REAL, random_weights=True).random_weights
    assert replace(REAL, weights="a.pt").weights == "a.pt"


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (REAL, {"random_weights": True, "weights": "a.pt"}, "model.weights=a.pt exclude each other"),
        (MODEL, {"weights": "a.pt"}, "model.weights=a.pt does nothing for model=tiny"),
        (MODEL, {"pretrained": "openai"}, "model.pretrained=openai does nothing for model=tiny"),
        (REAL, {"pretraining": MODEL.pretraining}, "model=real is an open_clip model"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(
    model: ModelParams, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        replace(model, **settings)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
