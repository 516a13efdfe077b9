from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from tests.explainers.context import Context
from tests.explainers.settings import configured_in
from tests.toolbox import refusal
from xai.core.composing import CONF, choices, shipped, stem
from xai.explainers.rows import (
    cost_of,
    every_row,
    load_row,
    made_from,
    of_photographs,
    open_row,
    removing_as_the_model,
)
from xai.models.maskable import Removal


def test_a_row_is_an_explainer_with_the_settings_of_its_file() -> None:
    row = load_row("kernel_shap_few")
    assert (row.name, row.entry.name, row.label) == ("kernel_shap_few", "kernel_shap", "Kernel SHAP")
    # Its own, and those of the file it names among its defaults.
    assert (row.params.coalitions, row.params.sampler) == (16, "leverage")


def test_what_is_typed_replaces_what_the_file_says_down_to_the_last_level() -> None:
    params = load_row("rise", {"rise": {"masks": 40, "removal": {"kind": "tokens"}}}).params
    assert (params.masks, params.keep_probability, params.removal) == (40, 0.5, Removal("tokens", "0.25"))
    assert load_row("rise").params.masks == 500  # type: ignore[attr-defined]


def test_a_row_may_be_of_another_number_of_perturbed_images() -> None:
    given = {"kernel_shap": {"coalitions": 512, "evaluation_coalitions": 256, "output": "probability"}}
    row = load_row("kernel_shap_16", given)
    assert (row.name, row.label) == ("kernel_shap_16", "Kernel SHAP, 16")
    assert (row.params.coalitions, row.params.evaluation_coalitions, row.params.output) == (16, 16, "probability")
    assert load_row("rise_1024").label == "RISE, 1,024"
    proxy = load_row("kernel_shap_ridge_32").params
    assert (getattr(proxy, "coalitions", None), getattr(proxy, "of", None)) == (32, "constant")
    assert list(map(stem, ("rise_64", "saliency_pixels_pooled", "rize_64"))) == ["rise", "saliency_pixels", "rize"]
    own = load_row("kernel_shap_16", {**given, "kernel_shap_16": {"output": "logit", "removal": None}}).params
    assert (getattr(own, "output", None), getattr(own, "coalitions", None)) == ("logit", 16)
    made = made_from([load_row("kernel_shap_ridge_32")], {})
    assert list(made) == ["constant"]


@pytest.mark.parametrize("name", ["grad_cam_16", "salvage_16"])
def test_a_row_without_such_a_number_says_so(name: str) -> None:
    whole = name.removesuffix("_16")
    assert refusal(load_row, name).startswith(f"{name}: {whole} asks about no number of perturbed images: leave _16")
    assert "rize_16" not in refusal(load_row, "rize_16")
    assert "did you mean rise?" in refusal(load_row, "rize_16")
    assert "explainer=kernel_shap_0.5 is not a known" in refusal(load_row, "kernel_shap_0.5")


def test_a_label_is_the_rows_own_where_it_has_one() -> None:
    assert open_row("mine", {"name": "random", "label": "Mine"}).label == "Mine"
    assert open_row("random", {}).label == "Random"


def test_what_a_file_leaves_open_has_to_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "explainer").mkdir()
    (tmp_path / "explainer" / "asks.yaml").write_text("name: position_prior\nof: ???\n")
    configured_in(tmp_path, monkeypatch)
    assert refusal(load_row, "asks") == "explainers.asks.of is not set: give it as explainers.asks.of=..."
    assert load_row("asks", {"asks": {"of": "rise"}}).name == "asks"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A user's folder with a row that is built on one that comes with the framework."""
    (tmp_path / "explainer").mkdir()
    (tmp_path / "explainer" / "quick_rise.yaml").write_text("defaults:\n  - rise\nmasks: 8\nlabel: Quick\n")
    return tmp_path


@pytest.mark.parametrize("added", ["searchpath", "config_dir"])
def test_rows_of_a_users_folder_are_found_where_hydra_looks(
    theirs: Path, added: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    assert "explainer=quick_rise is not a known explainer" in refusal(load_row, "quick_rise")
    overrides = [f"hydra.searchpath=[file://{theirs}]"] if added == "searchpath" else []
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        if added == "config_dir":
            path = GlobalHydra.instance().config_loader().get_search_path()
            path.prepend("command-line", f"file://{theirs}")
        config = hydra.compose("config", overrides=overrides, return_hydra_config=True)
        if added == "searchpath":
            # As in a job: what the command line adds is known there only.
            HydraConfig.instance().set_config(config)
        row = load_row("quick_rise")
        assert "quick_rise" in choices("explainer")
    HydraConfig.instance().cfg = None
    assert (row.label, row.entry.name, row.params.masks, row.params.keep_probability) == ("Quick", "rise", 8, 0.5)
    assert "quick_rise" not in choices("explainer")


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


def test_all_rows_of_a_comparison_remove_patches_as_the_classifier_does() -> None:
    rows, _ = every_row([], shipped("task/compare")["explainers"], lambda row: 0.0, None)
    own = {row.name for row in rows if getattr(row.params, "removal", None) is not None}
    assert own == {"tis"}  # of tokens, whatever is painted over for others


def test_a_row_that_leaves_tokens_out_does_so_whatever_the_model_does() -> None:
    def kept(name: str) -> Any:
        return getattr(removing_as_the_model(load_row(name), {}).params, "removal", "none")

    assert (kept("tis").kind, kept("rise"), kept("grad_cam")) == ("tokens", None, "none")


def test_the_grey_of_the_scattered_sets_alone_is_left_out_for_photographs() -> None:
    def kept(name: str, given: dict[str, Any]) -> Any:
        return getattr(of_photographs(load_row(name, {name: given}), given).params, "removal", "none")

    assert (kept("rise", {}), kept("grad_cam", {})) == (None, "none")
    assert kept("rise", {"removal": {"kind": "pixels", "reference": "0.25"}}) == Removal("pixels", "0.25")
    assert kept("kernel_shap_paper", {}) == Removal("pixels", "mean")
    assert kept("tis", {}).kind == "tokens"


def test_what_costs_more_than_the_budget_is_left_out_with_its_cost() -> None:
    made_of = {name: load_row(name) for name in ("kernel_shap", "grad_cam")}
    costs = partial(cost_of, Context(made_of, model=SimpleNamespace(image_size=12, classes=tuple("abcde"))))
    rows, left = every_row([], {}, costs, 300)
    assert "exact_shapley" in left
    assert "more than budget=300; by its name it is taken" in left["exact_shapley"]
    assert not {row.name for row in rows} & set(left)
    # A pass for each of the 16 channels of a layer, and 1.
    few, left = every_row([], {}, costs, 16)
    assert left["score_cam"] == left["ablation_cam"] == left["exact_shapley"].replace("512", "17").replace("300", "16")
    assert {"saliency", "mean_over_classes"} <= {row.name for row in few}
    # A row that is made from another: Kernel SHAP's 256 coalitions and the two ends, and Grad-CAM of each class.
    assert "a map costs 258 passes" in left["wrong_class"]
    assert "a map costs 5 passes" in every_row([], {}, costs, 4)[1]["mean_over_classes"]
