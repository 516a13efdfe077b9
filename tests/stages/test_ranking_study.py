from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.stages.bench import DATA
from tests.stages.ranked import DECODER, PERTURBATION, RANKING, REFINEMENT, UNFOCUSED, study
from tests.stages.studying import BLANK, SALVAGE, VIT_SHAPLEY, Trained
from xai.core.errors import UserError
from xai.metrics.functional.perturbation import enlarge_map
from xai.models.dpt import DecoderParams
from xai.ranking.refinement import in_units
from xai.results import read_result, read_tensors
from xai.stages.ranking_study import CONTROLS, LEARNED, RIVALS, RankingStudy, Rivals

QUICK = replace(PERTURBATION, images=3, steps=2, references=("black",), block=2)
ROLES = [*LEARNED, *RIVALS, *CONTROLS, "attention_rollout", "saliency"]
REFINED = ["ranking_t1", "ranking_t2", "decoder_t1", "flat_t1", "rollout_t2"]


def maps(of: RankingStudy, role: str) -> Tensor:
    """Maps [N, H, W] of the predicted classes, without measuring them."""
    return of.row(role).maps().maps[:, 0]


def pixels(of: RankingStudy) -> Tensor:
    return of.examination.images.pixels


def test_every_row_is_measured_under_its_name(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, *ROLES, *REFINED, params=QUICK)
    for role in given.rows:
        artifact = given.measured(role)
        result, tensors = read_result(artifact.path), read_tensors(artifact.path)
        assert (result.role, result.n_images) == (role, 3)
        assert 0 < result.metrics["deletion_auc"] < 1
        assert tensors["attributions"].shape == tensors["attributions_second"].shape == (3, 16, 16)
        assert given.measured(role).key == artifact.key
        if role in REFINED:
            assert result.params["refined"] == int(role[-1])
        assert ("train_seconds" in result.params) == (role in {*LEARNED, *RIVALS})
    assert sorted(trained.names) == ["Classifier", "Ranking", "Ranking", "Salvage", "Surrogate", "VitShapley"]


def test_learned_rows_hold_what_their_networks_say(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, *LEARNED, *RIVALS, params=QUICK)
    first = given.examination.targets[:, 0]
    for role in LEARNED:
        explainer = given.networks.explainer(given.variant(role))
        expected = explainer.attribute(pixels(given), first)
        torch.testing.assert_close(maps(given, role), expected, rtol=1e-4, atol=1e-5)
    stages = given.rivals.stages
    assert stages is not None
    salvage = stages.explainer("salvage", SALVAGE, stages.salvage(SALVAGE))
    shapley = stages.explainer("vit_shapley", VIT_SHAPLEY, stages.vit_shapley(VIT_SHAPLEY))
    expected = enlarge_map(salvage.attribute(pixels(given), first), (16, 16)).detach()  # type: ignore[operator]
    torch.testing.assert_close(maps(given, "salvage"), expected, rtol=1e-3, atol=1e-4)
    # Up to the correction that makes them add up, which moves all patches of an image alike.
    raw = shapley(pixels(given))[torch.arange(3), :, first].unflatten(1, (4, 4))
    apart = enlarge_map(raw, (16, 16)) - maps(given, "vit_shapley")
    assert apart.flatten(1).std(1).max() < 1e-3 * raw.std()


def test_the_published_row_differs_in_what_was_changed_since_alone(tmp_path: Path, trained: Trained) -> None:
    params = replace(RANKING, decoder=replace(DECODER, gradient=True))
    given = study(tmp_path)
    given = replace(given, networks=replace(given.networks, params=params))
    assert given.variant("ranking") == params
    plain = DecoderParams(8, 4, 2, 4, (1,), "concat", pixels=0, gradient=False)
    expected = replace(params, decoder=plain, loss=replace(RANKING.loss, own_class=0.0))
    assert given.variant("ranking_published") == expected


def test_controls_know_what_they_say_they_know(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, *CONTROLS, params=QUICK)
    images = given.examination.images
    assert images.regions is not None
    grey = images.pixels.mean(1)
    ground = grey.flatten(1).median(1).values[:, None, None]
    torch.testing.assert_close(maps(given, "brightness"), (grey - ground).abs())
    assert torch.equal(maps(given, "object_mask"), images.regions.float())
    noise = maps(given, "random")
    assert len(noise.unique()) > 0.99 * noise.numel()
    assert trained.names == ["Classifier"]
    prior = maps(given, "position_prior")
    validation = DATA.source.images("validation", torch.arange(8), 0).pixels
    predicted = given.examination.classifier(validation).argmax(1)
    mean = given.networks.explainer(RANKING).attribute(validation, predicted).mean(0)
    torch.testing.assert_close(prior, mean.expand(3, -1, -1), rtol=1e-4, atol=1e-5)


def test_figure_3a_has_every_step_from_every_start_that_a_row_has(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, "ranking", *REFINED, params=QUICK)
    found = given.over_refinement()
    assert list(found) == [(start, steps) for start in ("ranking", "decoder", "flat", "rollout") for steps in (1, 2)]
    for role in REFINED:
        start, steps = role.split("_t")
        assert found[start, int(steps)].key == given.measured(role).key
    assert study(tmp_path, "ranking", params=QUICK).over_refinement() == {}


def test_refinement_starts_from_the_trained_map_from_nothing_or_from_rollout(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, "ranking", *REFINED, params=QUICK)
    starts = {name: given._start(name) for name in ("ranking", "flat", "rollout")}
    images, targets = given.examination.images, given.examination.targets[:, 0]
    drawn = {name: start.draw(images, targets, torch.Generator()) for name, start in starts.items() if start.draw}
    torch.testing.assert_close(drawn["ranking"], maps(given, "ranking"), rtol=1e-4, atol=1e-5)
    assert not drawn["flat"].any()
    torch.testing.assert_close(enlarge_map(drawn["rollout"], (16, 16)), maps(given, "attention_rollout"))
    assert [starts[name].scale for name in starts] == [None, None, 4.0]
    assert in_units(drawn["rollout"], 4.0).std() > 3
    assert given._start("decoder").explainer is not None


def test_figure_3b_trains_with_other_numbers_of_points(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, params=QUICK, path_steps=(3, 5, 4))
    assert RANKING.objective.steps == 3
    found = {3: given.measured("ranking"), **given.over_path_steps()}
    assert list(found) == [3, 5, 4]
    assert [read_result(artifact.path).params["path_steps"] for artifact in found.values()] == [3, 5, 4]
    assert trained.names == ["Classifier", "Ranking", "Ranking", "Ranking"]
    assert len({artifact.key for artifact in found.values()}) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("rankin",), "rows: rankin is not a known row: did you mean ranking"),
        (("ranking_t0",), "rows: ranking_t0 is not a known row: did you mean ranking"),
        (("ranking_t3",), "rows: ranking_t3 wants 3 steps and refinement.steps=2: raise that"),
        (("zebra_t1",), "rows: zebra_t1 is not a known row"),
    ],
    ids=str,
)
def test_rows_that_cannot_be_made_are_refused_in_one_line(
    tmp_path: Path, trained: Trained, rows: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        study(tmp_path, *rows)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert trained.journal == []


def test_what_a_model_a_data_set_or_the_baselines_do_not_have_is_refused_first(
    tmp_path: Path, trained: Trained
) -> None:
    rivals = Rivals(None, SALVAGE, VIT_SHAPLEY)
    with pytest.raises(UserError, match=r"^rows: salvage needs a vision transformer to start from: drop it for this"):
        study(tmp_path, "ranking", "salvage", rivals=rivals)
    assert study(tmp_path, "ranking", rivals=rivals).rows == ("ranking",)
    with pytest.raises(UserError, match=r"^rows: object_mask needs the regions of the objects, data=blank has none"):
        study(tmp_path, "object_mask", data=BLANK, classifier_params=UNFOCUSED)
    with pytest.raises(UserError, match=r"^rows: there is no attention_rollout under baselines to start from: add it"):
        study(tmp_path, "ranking", "rollout_t1", baselines={})
    with pytest.raises(UserError, match=r"^steps=2 must be at least 3"):
        study(tmp_path, path_steps=(2,))
    wide = replace(REFINEMENT, objective=replace(REFINEMENT.objective, grid_max=17))
    with pytest.raises(UserError, match=r"^a grid of 17 x 17 cells does not fit an image of 16 x 16 px"):
        study(tmp_path, refinement=wide)
    assert trained.journal == []
