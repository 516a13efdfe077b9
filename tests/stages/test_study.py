from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.stages.bench import DATA, FIT
from tests.stages.studying import (
    EVALUATION,
    MODEL,
    SALVAGE,
    VIT_SHAPLEY,
    Trained,
    study,
)
from xai.core.errors import UserError
from xai.explainers.learned.vit_shapley import VitShapleyExplainer
from xai.games import PatchGame
from xai.metrics.functional import patch_coverage
from xai.models.explainer import SalvageNetwork
from xai.models.vit import build_vit
from xai.results import read_result, read_tensors
from xai.stages.controls import ink
from xai.stages.study import Study, open_baselines

FEW = replace(EVALUATION, masks=1)


def maps(of: Study, role: str) -> Tensor:
    """What a row says of the images, without measuring it."""
    explain = of.row(role).explain
    assert explain is not None
    return of.examination.maps(explain, of.examination.images, of.examination.labels)


def test_learned_rows_hold_what_their_networks_say(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, "salvage", "vit_shapley", params=FEW)
    rows = dict(zip(given.rows, given.run(), strict=True))
    pixels, labels = given.examination.images.pixels, given.examination.labels
    salvage, shapley = given.explainer("salvage"), given.explainer("vit_shapley")
    assert isinstance(salvage, SalvageNetwork)
    assert isinstance(shapley, VitShapleyExplainer)
    present, absent = salvage.parts(pixels)
    for image, label in enumerate(labels.tolist()):
        phi = (present - absent)[image, :, label].reshape(4, 4)
        torch.testing.assert_close(read_tensors(rows["salvage"].path)["attributions"][image], phi)
    torch.testing.assert_close(read_tensors(rows["salvage"].path)["logits"], present.sum(1), rtol=1e-4, atol=1e-5)
    found = read_tensors(rows["vit_shapley"].path)
    game = PatchGame(given.examination.surrogate, pixels, labels)
    ends = game.value(torch.tensor([[False], [True]]).expand(-1, 16))
    torch.testing.assert_close(found["attributions"].sum((1, 2)), ends[:, 1] - ends[:, 0], rtol=1e-3, atol=1e-4)
    raw = given.stages.explainer("vit_shapley", VIT_SHAPLEY, given.stages.vit_shapley(VIT_SHAPLEY))(pixels).sum(1)
    torch.testing.assert_close(found["logits"], raw, rtol=1e-4, atol=1e-5)
    lineage = read_result(rows["salvage"].path).lineage
    assert lineage["made_from"] == {"salvage": given.stages.salvage(SALVAGE).key}
    assert read_result(rows["salvage"].path).params["epochs"] == FIT.epochs


def test_classifiers_are_rows_without_maps(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, "classifier", "surrogate", params=FEW)
    for role, artifact in zip(given.rows, given.run(), strict=True):
        expected = given.stages.network(role)(given.examination.images.pixels)
        torch.testing.assert_close(read_tensors(artifact.path)["logits"], expected, rtol=1e-4, atol=1e-5)
        assert not {"lif", "rma"} & read_result(artifact.path).metrics.keys()
    assert trained.names == ["Classifier", "Surrogate"]


def test_post_hoc_rows_explain_the_surrogate(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path)
    pixels, labels = given.examination.images.pixels.clone().requires_grad_(), given.examination.labels
    network = build_vit(MODEL, 4, 0).eval()
    for kind, same in (("classifier", False), ("surrogate", True)):
        network.load_state_dict(load_file(getattr(given.stages, kind).file(f"{kind}.safetensors")))
        (gradient,) = torch.autograd.grad(network((pixels - 0.5) / 0.25)[torch.arange(6), labels].sum(), pixels)
        expected = gradient.abs().amax(1).unflatten(1, (4, 4)).unflatten(3, (4, 4)).mean((2, 4))
        assert torch.allclose(maps(given, "saliency"), expected, rtol=1e-3, atol=1e-6) == same


def test_controls_know_what_they_say_they_know(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path)
    images = given.examination.images
    assert images.regions is not None
    torch.testing.assert_close(maps(given, "brightness"), ink(images.pixels, (4, 4)))
    torch.testing.assert_close(maps(given, "object_mask"), patch_coverage(images.regions, (4, 4)).float())
    noise = maps(given, "random")
    assert len(noise.unique()) == noise.numel()
    assert trained.names == ["Classifier", "Surrogate"]
    prior = maps(given, "position_prior")
    salvage = given.explainer("salvage")
    validation = DATA.source.images("validation", torch.arange(8), 0).pixels
    mean = salvage.attribute(validation, DATA.source.labels("validation")).mean(0)
    torch.testing.assert_close(prior, mean.expand(6, 4, 4))


def test_rows_of_salvage_differ_in_sampling_alone(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, salvage=replace(SALVAGE, sampling="uniform"))
    keys = {role: given.row(role).made_from["salvage"] for role in ("salvage", "salvage_uniform", "salvage_kernel")}
    assert keys["salvage"] == keys["salvage_uniform"] != keys["salvage_kernel"]
    assert trained.journal[2:] == [("Salvage", 2, "uniform"), ("Salvage", 2, "shapley_kernel")]


def test_figure_7_trains_shares_of_the_epochs(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, params=FEW, lengths=(0.5,))
    found = given.over_length()
    assert list(found) == [(role, share) for role in ("salvage", "salvage_uniform") for share in (0.5, 1.0)]
    samplings = ("informed", "uniform")
    assert trained.journal[2:] == [("Salvage", epochs, sampling) for sampling in samplings for epochs in (1, 2)]
    params = {key: read_result(artifact.path).params for key, artifact in found.items()}
    assert {key: (said["share"], said["epochs"]) for key, said in params.items()} == {
        (role, share): (share, 2 * share) for role, share in found
    }
    assert found["salvage", 1.0].key == given.measured("salvage").key
    assert study(tmp_path).over_length() == {}
    rival = study(tmp_path, "salvage", "vit_shapley", params=FEW, lengths=(0.5,)).over_length()
    assert rival.keys() - found.keys() == {("vit_shapley", 0.5), ("vit_shapley", 1.0)}
    assert trained.journal[6:] == [("VitShapley", 1, None), ("VitShapley", 2, None)]


@pytest.mark.parametrize(
    ("epochs", "share", "message"),
    [
        (100, 0.29, None),
        (50, 0.14, None),
        (7, 1.0, None),
        (40, 0.33, r"lengths: 0\.33 of 40 epochs is no whole number of epochs"),
        (40, 1e-12, "no whole number of epochs"),
        (40, 0.0, r"lengths: 0\.0 is a share of the training: it must be above 0 and at most 1"),
        (40, 1.5, r"lengths: 1\.5 is a share of the training"),
    ],
)
def test_lengths_are_whole_numbers_of_epochs(
    tmp_path: Path, trained: Trained, epochs: int, share: float, message: str | None
) -> None:
    fit = replace(FIT, epochs=epochs)
    given: dict[str, Any] = {"salvage": replace(SALVAGE, fit=fit), "vit_shapley": replace(VIT_SHAPLEY, fit=fit)}
    if message is None:
        assert study(tmp_path, **given, lengths=(share,)).lengths == (share,)
        return
    with pytest.raises(UserError, match=message):
        study(tmp_path, **given, lengths=(share,))
    assert trained.journal == []


def test_figure_6_is_the_mean_likelihood_by_mask_size(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, likelihood=True)
    made = given.mask_likelihood
    tensors, result = read_tensors(made.path), read_result(made.path)
    surrogate, pixels, labels = given.examination.surrogate, given.examination.images.pixels, given.examination.labels
    alone = PatchGame(surrogate, pixels, labels).value(torch.eye(16, dtype=torch.bool))
    for name in ("random", "informed"):
        found = tensors[name]
        assert found.shape == (6, 16)
        whole = surrogate(pixels).softmax(1)[torch.arange(6), labels]
        torch.testing.assert_close(found[:, -1], whole, rtol=1e-4, atol=1e-5)
        assert (found[:, 0] > alone.min(1).values).all()
        assert (found[:, 0] < alone.max(1).values).all()
        spread = float((found - 0.5).abs().mean())
        assert result.metrics[f"spread_{name}"] == pytest.approx(spread)
    assert not torch.allclose(tensors["random"][:, :-1], tensors["informed"][:, :-1])
    assert result.role == "mask_likelihood"
    assert study(tmp_path, likelihood=True).mask_likelihood.key == made.key


def test_training_seconds_are_those_of_what_the_rows_need(tmp_path: Path, trained: Trained) -> None:
    given = study(tmp_path, "salvage_kernel", "vit_shapley", "random")
    assert given.training_seconds().keys() == {"classifier", "surrogate", "salvage_kernel", "vit_shapley"}
    assert given.training_seconds()["classifier"] == given.stages.classifier.seconds


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("salvag", "rows: salvag is not a known row: did you mean salvage"),
        ("salency", "rows: salency is not a known row: did you mean saliency"),
        ("zebra", "known here: brightness, classifier"),
    ],
)
def test_a_row_that_nobody_knows(tmp_path: Path, role: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        study(tmp_path, "salvage", role)


def test_the_object_mask_needs_regions(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(UserError, match="object_mask needs the regions of the objects, data=shades has none: drop it"):
        study(tmp_path, "object_mask", params=replace(EVALUATION, regions=False))
    assert study(tmp_path, "object_mask").rows == ("object_mask",)


@pytest.mark.parametrize("name", ["salvage", "vit_shapley"])
def test_heads_of_a_decoder_divide_its_width(tmp_path: Path, name: str) -> None:
    params = {"salvage": SALVAGE, "vit_shapley": VIT_SHAPLEY}[name]
    with pytest.raises(UserError, match=rf"{name}\.heads=3 does not divide the 8 channels of model=tiny"):
        study(tmp_path, **{name: replace(params, heads=3)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("rise", r"baselines\.mine=rise must be the settings of an explainer"),
        ({"name": "risee", "block": 4}, r"baselines\.mine\.name=risee is not a known explainer: did you mean rise"),
        ({"name": "grad_cam", "block": 4, "coalitions": 2}, r"baselines\.mine\.coalitions"),
        ({"block": 4}, r"baselines\.mine\.name is not set"),
        ({"name": "grad_cam", "block": "ten"}, r"baselines\.mine\.block=ten must be a whole number"),
    ],
)
def test_settings_of_a_post_hoc_explainer(settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_baselines({"mine": settings})


@pytest.mark.parametrize(
    ("changes", "rows"),
    [({"likelihood": True}, ["random"]), ({"lengths": (0.5,)}, ["random"]), ({}, ["random", "position_prior"])],
)
def test_what_is_about_salvage_needs_its_row(tmp_path: Path, changes: dict[str, Any], rows: list[str]) -> None:
    with pytest.raises(UserError, match=r"is about SALVAGE, .* add salvage to rows"):
        study(tmp_path, *rows, **changes)
