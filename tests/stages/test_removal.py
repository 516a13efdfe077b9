from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.stages.bench import DATA
from tests.stages.studying import BLANK, CLASSIFIER, EVALUATION, NUMBERED, Trained, examination, pairs, stages
from xai.core.errors import UserError
from xai.data.registry import Images
from xai.metrics.functional import patch_coverage
from xai.results import read_result, read_tensors
from xai.stages.removal import EvaluationParams, Explain, RemovalExamination, RemovalRow


def drawn(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(len(targets), 4, 4, generator=generator)


def row(role: str = "random", explain: Explain | None = drawn, **changes: Any) -> RemovalRow:
    return replace(RemovalRow(role, {"explainer": "drawn"}, explain, None, {"epochs": 7}), **changes)


def test_a_row_can_be_recomputed_from_its_tensors(tmp_path: Path, trained: Trained) -> None:
    given = examination(tmp_path)
    classify = given.stages.network("classifier")
    made = given.measure(row(classify=lambda pixels: -classify(pixels)))
    result, tensors = read_result(made.path), read_tensors(made.path)
    assert (result.method, result.role, result.data, result.model) == ("removal", "random", "shades", "tiny")
    assert (result.split, result.n_images, result.seed, result.params["masks"]) == ("test", 6, 0, 3)
    assert result.params["epochs"] == 7
    assert result.lineage["made_from"] == {"explainer": "drawn"}
    assert result.lineage["surrogate"] == given.stages.surrogate.key
    means = {name: float(tensors[name].mean()) for name in ("lif", "mif", "r_lif", "r_mif")}
    means |= {"srg": means["lif"] - means["mif"], "r_srg": means["r_lif"] - means["r_mif"]}
    assert {name: result.metrics[name] for name in means} == pytest.approx(means, rel=1e-9)
    labels, logits, original = tensors["labels"], tensors["logits"], tensors["classifier_logits"]
    torch.testing.assert_close(logits, -original)
    assert result.metrics["accuracy"] == float((logits.argmax(1) == labels).double().mean())
    assert result.metrics["agreement"] == float((logits.argmax(1) == original.argmax(1)).double().mean())
    inside = [patch_mass(*pair) for pair in zip(tensors["attributions"], tensors["regions"], strict=True)]
    assert result.metrics["rma"] == pytest.approx(sum(inside) / 6)


def patch_mass(attribution: Tensor, region: Tensor) -> float:
    """Share of the positive attribution inside of the region, pixel by pixel."""
    pixels = attribution.double().clamp(min=0).repeat_interleave(4, 0).repeat_interleave(4, 1)
    return float(pixels[region.bool()].sum() / pixels.sum())


def test_curves_are_what_the_surrogate_says_of_images_with_patches_left_out(tmp_path: Path, trained: Trained) -> None:
    given = examination(tmp_path)
    tensors = read_tensors(given.measure(row()).path)
    surrogate = given.stages.network("surrogate")
    for image in range(6):
        order = tensors["attributions"][image].flatten().argsort(descending=True)
        for curve, ordered in (("lif", order), ("mif", order.flip(0))):
            for present in range(1, 17):
                keep = torch.zeros(1, 16, dtype=torch.bool)
                keep[0, ordered[:present]] = True
                logits = surrogate(given.images.pixels[image : image + 1], keep)
                value = logits.softmax(1)[0, given.labels[image]].item()
                assert tensors[curve][image, present - 1].item() == pytest.approx(value, abs=1e-5)
        torch.testing.assert_close(tensors["r_lif"][image, -1], tensors["lif"][image, -1])


def test_every_row_sees_the_same_images_and_is_given_the_same_draws(tmp_path: Path, trained: Trained) -> None:
    given = examination(tmp_path)
    a, b = (read_tensors(given.measure(row(role)).path) for role in ("random", "rise"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    labels = DATA.source.labels("test")
    assert given.rows.tolist() == sorted(set(given.rows.tolist()))
    assert a["labels"].tolist() == labels[given.rows].tolist()
    expected = DATA.source.images("test", given.rows, 0)
    assert torch.equal(given.images.pixels, expected.pixels)
    other = examination(tmp_path, seed=1)
    assert not torch.equal(other.maps(drawn, other.images, other.labels), a["attributions"])


def test_maps_are_made_block_by_block(tmp_path: Path, trained: Trained) -> None:
    sizes, seeds = [], []

    def watching(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
        assert images.regions is not None
        sizes.append((len(images.pixels), len(images.regions), len(targets)))
        seeds.append(generator.initial_seed())
        return targets[:, None, None] + images.pixels.mean((1, 2, 3))[:, None, None].expand(-1, 4, 4)

    given = examination(tmp_path)
    maps = given.maps(watching, given.images, given.labels)
    assert sizes == [(4, 4, 4), (2, 2, 2)]
    assert len(set(seeds)) == 2
    torch.testing.assert_close(maps[:, 1, 2], given.labels + given.images.pixels.mean((1, 2, 3)))


def test_a_row_is_measured_once_and_anew_for_whatever_else_it_is_made_from(tmp_path: Path, trained: Trained) -> None:
    calls = []

    def counted(*given: Any) -> Tensor:
        calls.append(1)
        return drawn(*given)

    def key(evaluation: EvaluationParams = EVALUATION, seed: int = 0, **changes: Any) -> str:
        given = examination(tmp_path, replace(evaluation, block=6), seed=seed)
        return given.measure(row(explain=counted, **changes)).key

    same = [key(), key(), key(params={"epochs": 8})]
    assert len(set(same)) == len(calls) == 1
    others = [
        key(role="rise"),
        key(made_from={"explainer": "another"}),
        key(replace(EVALUATION, masks=2)),
        key(replace(EVALUATION, split="validation")),
        key(replace(EVALUATION, regions=False)),
        key(seed=1),
    ]
    assert len({*same, *others}) == len(calls) == 7


def test_a_row_that_only_classifies_has_no_curves_and_one_that_only_explains_no_accuracy(
    tmp_path: Path, trained: Trained
) -> None:
    given = examination(tmp_path)
    only = given.measure(row("classifier", None, classify=given.stages.network("classifier")))
    assert read_result(only.path).metrics.keys() == {"accuracy", "agreement", "precision", "recall", "f1", "mcc"}
    assert read_result(only.path).metrics["agreement"] == 1
    assert "lif" not in read_tensors(only.path)
    explains = given.measure(row())
    names = {"lif", "mif", "srg", "r_lif", "r_mif", "r_srg", "rma", "rra", "pointing_game"}
    assert read_result(explains.path).metrics.keys() == names
    assert "logits" not in read_tensors(explains.path)


def test_a_constant_map_is_scored_as_a_random_order(tmp_path: Path, trained: Trained) -> None:
    given = examination(tmp_path)
    made = given.measure(row(explain=lambda images, targets, generator: torch.ones(len(targets), 4, 4)))
    metrics = read_result(made.path).metrics
    assert all(0 < metrics[name] < 1 for name in ("lif", "mif", "r_lif", "r_mif"))
    assert abs(metrics["r_srg"]) < 0.1


@pytest.mark.parametrize(("regions", "wanted"), [(None, True), (True, True), (False, False)])
def test_regions_are_measured_where_they_are_wanted(
    tmp_path: Path, trained: Trained, regions: bool | None, wanted: bool
) -> None:
    made = examination(tmp_path, replace(EVALUATION, regions=regions)).measure(row())
    assert ("rma" in read_result(made.path).metrics) == ("regions" in read_tensors(made.path)) == wanted


def test_a_data_set_without_regions(tmp_path: Path, trained: Trained) -> None:
    changes: dict[str, Any] = {"data": BLANK, "classifier_params": replace(CLASSIFIER, focus=0.0)}
    given = examination(tmp_path, **changes)
    assert not given.has_regions
    assert not {"rma", "rra", "pointing_game"} & read_result(given.measure(row()).path).metrics.keys()
    with pytest.raises(
        UserError, match=r"evaluation\.regions=true asks for RMA and RRA, and data=blank has no regions"
    ):
        examination(tmp_path, replace(EVALUATION, regions=True), **changes)


def test_the_grid_pointing_game_asks_for_each_of_two_objects(tmp_path: Path, trained: Trained) -> None:
    params = replace(EVALUATION, probe_images=8)
    given = RemovalExamination(stages(tmp_path, data=NUMBERED), params, pairs())

    def right(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
        assert images.regions is not None
        return patch_coverage(images.regions, (4, 4)).float()

    def the_other(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
        swapped = torch.arange(len(targets)).unflatten(0, (-1, 2)).flip(1).flatten()
        return right(images, targets, generator)[swapped]

    assert read_result(given.measure(row("object_mask", right)).path).metrics["grid_pointing"] == 1
    assert given.grid_pointing(the_other) == 0
    without = RemovalExamination(given.stages, replace(params, probe_images=0), pairs())
    assert "grid_pointing" not in read_result(without.measure(row()).path).metrics


def test_a_probe_has_pairs_of_the_same_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="probe=numbered is no data set of pairs: use mnist_pair"):
        RemovalExamination(stages(tmp_path, data=NUMBERED), EVALUATION, NUMBERED)
    with pytest.raises(UserError, match="probe=pairs has other classes than data=shades"):
        RemovalExamination(stages(tmp_path), EVALUATION, pairs())


def test_more_images_than_there_are_are_refused_before_any_training(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(UserError, match=r"evaluation\.images=10: the test split of data=.* has 9 images"):
        examination(tmp_path, replace(EVALUATION, images=10))
    assert trained.journal == []
