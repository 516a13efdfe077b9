import pytest
import torch
from xai.explainers.kernel_shap import KernelShapParams

from tests.explainers.settings import CONF, NAMES, configured
from xai.core.errors import UserError
from xai.explainers import registry
from xai.explainers.registry import ExplainerParams, entry, names, register
from xai.models.maskable import Removal

FILES = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_the_catalogue_fills_the_registry() -> None:
    assert {"exact_shapley", "grad_cam", "kernel_shap"} <= set(names())


def test_every_explainer_has_a_file_of_its_name_in_the_configuration() -> None:
    assert set(NAMES) <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_the_files_of_the_configuration_are_settings(file: str) -> None:
    params = configured(file)
    assert isinstance(params, ExplainerParams)
    for split in ("train", "validation", "test"):
        assert type(params.for_split(split)) is type(params)


def test_the_papers_settings_are_the_papers() -> None:
    paper = configured("kernel_shap_paper")
    assert isinstance(paper, KernelShapParams)
    assert (paper.coalitions, paper.sampler, paper.removal.reference) == (500, "without_replacement", "mean")


@pytest.mark.parametrize("name", ["exact_shapley", "kernel_shap"])
def test_players_of_games_say_how_patches_are_removed(name: str) -> None:
    assert configured(name, removal={"kind": "tokens"}).classifier_removal == Removal("tokens")
    assert configured("grad_cam").classifier_removal is None


def test_an_unknown_name_is_one_line_with_the_nearest_or_with_all() -> None:
    with pytest.raises(
        UserError, match=r"^supervision=kernel_shp is not a known explainer: did you mean kernel_shap\?$"
    ):
        entry("kernel_shp")
    with pytest.raises(UserError) as caught:
        entry("zzz")
    assert str(caught.value) == f"supervision=zzz is not a known explainer: choose from {', '.join(names())}"


def test_what_is_registered_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", {})

    @register("flat", "the same everywhere", ExplainerParams)
    class Flat:
        def __init__(self, *given: object) -> None:
            self.given = given

    found = entry("flat")
    assert (found.name, found.about, found.params) == ("flat", "the same everywhere", ExplainerParams)
    model, generator = torch.nn.Identity(), torch.Generator()
    assert found.build(model, ExplainerParams(), generator).given == (model, ExplainerParams(), generator)
    register("even", "flat by another name", ExplainerParams)(Flat)
    assert names() == ["even", "flat"]
