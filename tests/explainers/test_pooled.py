"""Rows of pixels averaged in patches: made of another row's maps, without a file or a pass of their own."""

from pathlib import Path

import pytest
import torch.nn.functional as F

from tests.explainers.context import Context
from tests.explainers.settings import configured
from tests.study.engine import made, study
from xai.core.errors import UserError
from xai.explainers.registry import entry, passes_of, refusal
from xai.explainers.rows import load_row, made_from
from xai.study.maps import explain

NAMES = ("integrated_gradients_pixels", "integrated_gradients_pixels_pooled")


def test_any_row_of_pixels_has_one_in_patches_by_its_name() -> None:
    row = load_row(NAMES[1])
    assert (row.entry.name, row.label) == ("pooled", "Int. grad., px, pooled")
    assert not row.params.of_pixels
    sources = made_from([row], {NAMES[0]: {"steps": 3}})
    assert {name: source.params for name, source in sources.items()} == {
        NAMES[0]: load_row(NAMES[0], {NAMES[0]: {"steps": 3}}).params
    }
    with pytest.raises(UserError, match=r"^explainer=integrated_gradient_pixels .* did you mean"):
        load_row("integrated_gradient_pixels_pooled")


def test_it_is_the_mean_of_the_other_rows_own_maps_which_are_made_once(tmp_path: Path) -> None:
    asked = study(tmp_path, NAMES, changes={NAMES[0]: {"steps": 2}})
    frames = asked.run()
    assert made(asked).count("maps") == 1
    case, (pixels, pooled) = asked.cases[0][0], asked.rows
    whole, averaged = (explain(case, row).attributions for row in (pixels, pooled))
    assert whole is not None
    assert averaged is not None
    assert averaged.shape[1:] == case.network().grid
    assert averaged.equal(F.avg_pool2d(whole, whole.shape[-1] // averaged.shape[-1]))
    assert frames.costs.groupby("explainer")["passes"].first().tolist() == [6.0, 6.0]
    scores = frames.scores.pivot_table(index="explainer", columns="metric", values="value")
    assert scores.loc[NAMES[0], "rma"] != scores.loc[NAMES[1], "rma"]


def test_what_has_no_pixels_or_cannot_be_had_is_refused() -> None:
    context = Context({name: load_row(name) for name in ("saliency", "object_mask_pixels")})
    for name, reason in (
        ("saliency", "pooled: the maps of saliency are not of pixels"),
        ("object_mask_pixels", "pooled is made from object_mask_pixels, which cannot be had here: object_mask needs"),
    ):
        assert str(refusal(entry("pooled"), configured("pooled", of=name), context)).startswith(reason)
    saliency = load_row("saliency")
    assert passes_of(context, saliency, saliency.entry.prepare(context, saliency.params)) == 3
