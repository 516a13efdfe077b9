"""Settings of the rows of Learn to Rank out of their ranges are refused by the path that was typed."""

import math
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.test_ranges import OBJECTIVE, changed, leaves
from xai.core.composing import compose_choice
from xai.core.errors import UserError
from xai.explainers.rows import load_row

ROWS: dict[str, dict[str, Any]] = {
    "ranking": {
        "backbone": {"mean": [[0.5, 0.5]]},
        "decoder": {
            "channels": [7],
            "head": [0],
            "resize": [[]],
            "resize[1]": [0],
            "conditioning": ["film"],
            "norm": ["layer"],
            "dropout": [1.0],
            "pixels": [-1],
            "scale": [0.0],
        },
        "objective": OBJECTIVE,
        "loss": {"own_class": [1.5], "runner_up": [-0.1], "temperature_start": [0.0], "temperature_end": [0.0]},
    },
    "refined": {
        "steps": [-1],
        "draws": [0],
        "size": [0.0],
        "temperature": [0.0],
        "learning_rate": [math.nan],
        "sigma": [-1.0],
        "objective": OBJECTIVE,
    },
}


@pytest.mark.parametrize("row", ROWS)
def test_a_setting_out_of_range_is_refused_by_its_path(row: str) -> None:
    plain: Any = OmegaConf.to_container(compose_choice("explainer", row))
    if row == "ranking":
        plain["backbone"]["mean"] = [0.5] * 3
    load_row(row, {row: plain})
    for path, value in leaves(ROWS[row]):
        settings = changed(plain, path, value)
        with pytest.raises(UserError) as caught:
            load_row(row, {row: settings})
        assert str(caught.value).startswith(f"explainers.{row}.{path}="), path


def test_a_decoder_that_sees_a_gradient_sees_pixels() -> None:
    with pytest.raises(UserError, match=r"^explainers.ranking.decoder.gradient=true .* pixels"):
        load_row("ranking", {"ranking": {"decoder": {"pixels": 0}}})
