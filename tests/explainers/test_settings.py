"""Settings of explainers that will not do: one line each, which begins with the path that the user typed."""

import math
from typing import Any

import pytest

from tests.explainers.settings import configured
from xai.core.errors import UserError

OUTPUT = "is unknown: use logit, probability or centred_logit"
BASELINE = "is unknown: use black, mean, blur, or a grey level between 0 and 1"

FAULTS: list[tuple[str, dict[str, Any], str]] = [
    # Of a single setting, where it stands.
    ("rise", {"masks": 1}, "masks=1 must be at least 2"),
    ("rise", {"masks": "many"}, "masks=many must be a whole number"),
    ("rise", {"maks": 1}, "maks is not a known setting: did you mean masks?"),
    ("rise", {"keep_probability": 0.0}, "keep_probability=0.0 must be above 0"),
    ("rise", {"keep_probability": 1.0}, "keep_probability=1.0 must be below 1"),
    ("rise", {"removal": {"kind": "x"}}, "removal.kind=x is unknown: use tokens or pixels"),
    *((name, {"output": "loss"}, f"output=loss {OUTPUT}") for name in ("rise", "kernel_shap", "saliency")),
    ("exact_shapley", {"output": "loss"}, f"output=loss {OUTPUT}"),
    ("kernel_shap", {"coalitions": 0}, "coalitions=0 must be at least 2"),
    ("kernel_shap", {"evaluation_coalitions": -2}, "evaluation_coalitions=-2 must be at least 2 or null"),
    (
        "kernel_shap",
        {"sampler": "pared"},
        "sampler=pared is unknown: use shapley_kernel, paired, leverage or without_replacement",
    ),
    ("shapley_distribution", {"divergence": "l2"}, "divergence=l2 is unknown: use jensen_shannon or kullback_leibler"),
    ("shapley_distribution", {"steps": 0}, "steps=0 must be at least 1"),
    ("shapley_distribution", {"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
    ("integrated_gradients", {"steps": 0}, "steps=0 must be at least 1"),
    ("eigen_cam", {"sign": "positive"}, "sign=positive is unknown: use largest or library"),
    ("saliency", {"resolution": "grid"}, "resolution=grid is unknown: use patch or pixel"),
    ("saliency", {"resolution": "pixel", "sigma": -1.0}, "sigma=-1.0 must be at least 0"),
    ("saliency", {"resolution": "pixel", "sigma": math.inf}, "sigma=inf must be a finite number"),
    ("random", {"resolution": "grid"}, "resolution=grid is unknown: use patch or pixel"),
    ("position_prior", {"images": 0}, "images=0 must be at least 1 or null"),
    # Of several together; of settings that explainers share, in one that is built on them.
    *(
        (name, {"sigma": 2.0}, "sigma=2.0 smooths maps of pixels: set resolution=pixel")
        for name in ("saliency", "input_x_gradient", "integrated_gradients")
    ),
    *(
        ("integrated_gradients", {"baseline": level}, f"baseline={level} {BASELINE}")
        for level in ("white", "1.5", -0.1, "nan")
    ),
    ("vit_cx", {"reference": "white"}, f"reference=white {BASELINE}"),
    *(
        ("kernel_shap", {name: 7}, f"{name}=7 must be even: the coalitions of sampler=leverage come in pairs")
        for name in ("coalitions", "evaluation_coalitions")
    ),
    ("shapley_distribution", {"output": "logit"}, "output=logit has no distribution over classes: use probability"),
]


@pytest.mark.parametrize(("row", "changes", "message"), FAULTS)
def test_a_fault_is_one_line_with_the_path_that_was_typed(row: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        configured(row, **changes)
    assert str(caught.value) == f"explainers.{row}.{message}"
