"""`rows=[all]`: what is among them, and what is not."""

from functools import partial
from types import SimpleNamespace

from tests.explainers.context import Context
from xai.explainers.rows import cost_of, every_row, load_row


def test_all_rows_are_one_of_each_explainer_and_kind_of_map_and_none_that_is_trained() -> None:
    named = [load_row("integrated_gradients_pixels")]
    rows, left = every_row(named, {"rise": {"masks": 50}}, partial(cost_of, Context()), None)
    names = [row.name for row in rows]
    assert {"rise", "kernel_shap", "grad_cam", "saliency", "saliency_pixels", "integrated_gradients"} <= set(names)
    assert {"random", "brightness", "object_mask"} <= set(names)
    forbidden = {"integrated_gradients_pixels", "kernel_shap_few", "salvage", "ranking_t1", "position_prior", "flat_t1"}
    assert not {*forbidden, "classifier", "ft_target"} & set(names)
    kinds = [(row.entry.name, row.params.of_pixels) for row in rows]
    assert len(kinds) == len(set(kinds))
    assert [row.entry.info.kind for row in rows] == sorted((row.entry.info.kind for row in rows), reverse=True)
    assert not left
    assert next(row for row in rows if row.name == "rise").params.masks == 50  # type: ignore[attr-defined]


def test_what_costs_more_than_the_budget_is_left_out_with_its_cost() -> None:
    costs = partial(cost_of, Context(model=SimpleNamespace(image_size=12)))
    rows, left = every_row([], {}, costs, 300)
    assert "exact_shapley" in left
    assert "more than budget=300; by its name it is taken" in left["exact_shapley"]
    assert not {row.name for row in rows} & set(left)
    # A pass for each of the 16 channels of a layer, and 1.
    few, left = every_row([], {}, costs, 16)
    assert left["score_cam"] == left["ablation_cam"] == left["exact_shapley"].replace("512", "17").replace("300", "16")
    assert "saliency" in {row.name for row in few}
