"""What README and docs/python.md show runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

import xai
from tests.api.networks import Plain, vit

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-4, "weight_decay": 0.05, "warmup": 0.1, "clip": 1.0}


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter only in what it costs: small images, few masks, a step of training."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save({"model": timm.create_model("resnet18", num_classes=2).state_dict()}, "mine.pt")
    load, explain, fit = xai.load, xai.explain, xai.fit

    def quick(*given: Any, **more: Any) -> Any:
        return explain(*given, **{**more, **({"masks": 8} if "rise" in given else {})})

    monkeypatch.setattr("xai.api.loading.load", lambda *given, **more: load(*given, **more, image_size=64))
    monkeypatch.setattr("xai.api.explaining.explain", quick)
    monkeypatch.setattr(
        "xai.api.fitting.fit",
        lambda *given: fit(
            *given, **({"surrogate": {"fit": SHORT}} if given[0] == "salvage" else {}), fit=SHORT, masks=4
        ),
    )
    pictures = [Image.new("RGB", (80, 64), colour) for colour in ("red", "blue")]
    scope: dict[str, Any] = {
        "network": Plain(outputs=2),
        "images": pictures,
        "transformer": xai.wrap(vit(), image_size=32),
    }
    code = blocks(page)
    assert code
    for each in code:
        exec(each.replace("224, 224", "28, 28"), scope)
    assert scope["maps"].ndim == 3
    if page == "README.md":
        assert scope["phi"].shape == scope["error"].shape == (2, 49)
    assert set(scope["frame"].explainer) == {"grad_cam", "rise", "random"}
