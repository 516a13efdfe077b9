import numpy as np
import pytest
import shap
import torch

from tests.models.tiny_clip import classifier, pictures
from tests.shapley.tables import TableGame, codes, random_table, shapley_by_dividends
from xai.games import PatchGame
from xai.models.maskable import Removal
from xai.shapley.coalitions import SAMPLERS, sample
from xai.shapley.design import Design
from xai.shapley.kernel_shap import Select, kernel_shap, kernel_shap_with_error, solve_selected
from xai.shapley.regression import SOLVERS, Regression


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_game_is_asked_once_for_the_design_and_both_ends(name: str, solver: str) -> None:
    game = TableGame(random_table(9, classes=2))
    phi = kernel_shap(game, 60, torch.Generator().manual_seed(4), sampler=name, solver=solver)
    design = sample(name, 9, 60, torch.Generator().manual_seed(4))
    (asked,) = game.asked
    assert sorted(codes(asked).tolist()) == sorted([0, 511, *codes(design.coalitions).tolist()])
    values, empty, full = game.table[:, codes(design.coalitions)], game.table[:, 0], game.table[:, -1]
    assert torch.equal(phi, Regression(design, values, empty, full, solver=solver).values())


def test_the_default_is_least_squares_of_paired_draws() -> None:
    game = TableGame(random_table(9))
    named = kernel_shap(game, 60, torch.Generator().manual_seed(4), sampler="leverage", solver="least_squares")
    assert torch.equal(kernel_shap(game, 60, torch.Generator().manual_seed(4)), named)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("coalitions", [1022, 4000])
@pytest.mark.parametrize("classes", [None, 2])
def test_a_budget_for_every_coalition_gives_the_exact_values(
    name: str, solver: str, coalitions: int, classes: int | None
) -> None:
    game = TableGame(random_table(10, classes=classes))
    estimate = kernel_shap_with_error(game, coalitions, torch.Generator(), sampler=name, solver=solver)
    torch.testing.assert_close(estimate.values, shapley_by_dividends(game.table), rtol=1e-10, atol=1e-10)
    assert not estimate.standard_error.any()
    (asked,) = game.asked
    assert torch.equal(codes(asked).sort().values, torch.arange(1024))


@pytest.mark.parametrize("solver", SOLVERS)
def test_values_are_the_same_with_their_error_and_without(solver: str) -> None:
    game = TableGame(random_table(9))
    proxy = torch.randn(3, 9, generator=torch.Generator().manual_seed(1))
    # So few pairs that the proxy matters to both solvers.
    for coalitions, given in ((60, None), (10, proxy)):
        (values, error), alone = (
            solved(game, coalitions, torch.Generator().manual_seed(4), sampler="leverage", solver=solver, proxy=given)
            for solved in (kernel_shap_with_error, kernel_shap)
        )
        assert torch.equal(values, alone)
        assert error.shape == values.shape
        assert error.isposinf().all() == (coalitions == 10 and solver == "least_squares")


def test_what_cannot_be_done_is_refused_before_the_game_is_asked() -> None:
    game = TableGame(random_table(5))
    for arguments, message in (
        ({"sampler": "halton"}, "sampler 'halton' is unknown"),
        ({"coalitions": 7}, "not 5, 7"),
        ({"coalitions": 31}, "not 5, 31"),
        ({"solver": "ridge"}, "solver 'ridge' is unknown"),
    ):
        with pytest.raises(ValueError, match=message):
            kernel_shap(game, **{"coalitions": 8, "generator": torch.Generator(), **arguments})
    assert not game.asked


def test_a_classifier_is_explained_as_by_its_own_masked_passes() -> None:
    images, model = pictures(3), classifier(Removal("tokens"))
    phi = kernel_shap(PatchGame(model, images, output="logit"), 120, torch.Generator().manual_seed(9))
    assert phi.shape == (3, 16, 5)
    design = sample("leverage", 16, 120, torch.Generator().manual_seed(9))
    values = torch.stack([model(images, row.expand(3, -1)) for row in design.coalitions], dim=1)
    blank = torch.zeros(3, 16, dtype=torch.bool)
    expected = Regression(design, values, model(images, blank), model(images)).values()
    torch.testing.assert_close(phi.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(phi.sum(1).double(), model(images) - model(images, blank), rtol=1e-4, atol=1e-4)
    targets = torch.tensor([0, 4, 2])
    aimed = kernel_shap(PatchGame(model, images, targets, output="logit"), 120, torch.Generator().manual_seed(9))
    torch.testing.assert_close(aimed, phi[torch.arange(3), :, targets], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("select", "l1_reg"), [("all", False), ("aic", "aic"), (3, "num_features(3)")])
def test_a_classifier_is_explained_as_by_the_shap_package_on_its_coalitions(select: Select, l1_reg: str | bool) -> None:
    image, model = pictures(1), classifier(Removal("tokens"))
    game = PatchGame(model, image, output="logit")

    def logits(rows: np.ndarray) -> np.ndarray:
        return game.value(torch.from_numpy(rows > 0.5))[0].double().numpy()

    np.random.seed(0)
    explainer = shap.KernelExplainer(logits, np.zeros((1, 16)), silent=True)
    expected = explainer.shap_values(np.ones((1, 16)), nsamples=200, l1_reg=l1_reg)[0]
    used = explainer.nsamplesAdded
    rows = torch.from_numpy(explainer.maskMatrix[:used] > 0.5)
    weights = torch.from_numpy(explainer.kernelWeights[:used])
    ends = game.value(torch.tensor([[False], [True]]).expand(-1, 16))
    design = Design(rows, weights, torch.zeros(used), paired=False)
    phi = solve_selected(design, game.value(rows), ends[:, 0], ends[:, 1], select)
    np.testing.assert_allclose(phi[0].numpy(), expected, rtol=1e-4, atol=1e-5)
    nothing = int((phi[0] == 0).sum())
    assert nothing == {"all": 0, 3: 13 * 5}.get(select, nothing)
    one = solve_selected(design, game.value(rows)[..., 2], ends[:, 0, 2], ends[:, 1, 2], select)
    torch.testing.assert_close(one, phi[..., 2])


def test_selected_patches_share_what_there_is_and_the_others_have_nothing() -> None:
    game = TableGame(random_table(9, classes=2))
    phi = kernel_shap(game, 60, torch.Generator().manual_seed(4), select=4)
    assert ((phi != 0).sum(1) == 4).all()
    torch.testing.assert_close(phi.sum(1), game.table[:, -1] - game.table[:, 0])
    for wrong in ({"solver": "unbiased"}, {"proxy": torch.zeros(3, 9, 2)}):
        with pytest.raises(ValueError, match="select=4 needs the least squares solver, and no proxy"):
            kernel_shap(game, 60, torch.Generator(), select=4, **wrong)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_game_on_a_gpu_is_solved_there(name: str, solver: str) -> None:
    table, proxy = random_table(9, classes=2), torch.randn(3, 9, 2, generator=torch.Generator().manual_seed(1))
    here, there = (
        kernel_shap_with_error(
            TableGame(table.to(device)), 60, torch.Generator().manual_seed(4), sampler=name, solver=solver, proxy=proxy
        )
        for device in ("cpu", "cuda")
    )
    for expected, given in zip(here, there, strict=True):
        assert given.device.type == "cuda"
        torch.testing.assert_close(given.cpu(), expected, rtol=1e-9, atol=1e-10)
