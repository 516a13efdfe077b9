from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.stages.bench import DATA
from tests.stages.ranked import PERTURBATION, UNFOCUSED, colour, examination
from tests.stages.studying import BLANK, Trained
from xai.core.errors import UserError
from xai.data.registry import Images
from xai.metrics import functional
from xai.metrics.functional.perturbation import area, enlarge_map, perturbation_curves
from xai.models.maskable import Removal, reference_image
from xai.papers.ranking.params import PerturbationParams
from xai.results import read_result, read_tensors
from xai.stages.perturbation import Draw, PerturbationExamination, PerturbationRow


def row(given: PerturbationExamination, draw: Draw = colour, **changes: Any) -> PerturbationRow:
    made = PerturbationRow("coloured", {"drawn": "colour"}, lambda: given.maps(draw), {"lucky": 7.0})
    return replace(made, **changes)


@pytest.fixture
def given(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> PerturbationExamination:
    """Six images, of which the classifier is right about two."""
    made = examination(tmp_path)
    predicted = made.logits.argmax(1)
    wrong = (predicted + 1 + torch.arange(6) % 3) % 4
    labels = torch.where(torch.arange(6) % 3 == 1, predicted, wrong)
    monkeypatch.setattr(PerturbationExamination, "labels", property(lambda _: labels))
    assert made.right.tolist() == [False, True, False] * 2
    return made


def direct(given: PerturbationExamination, image: int, target: int, reference: str) -> dict[str, Tensor]:
    """Curves [S] of one image and class, along the map of that class."""
    pixels = given.images.pixels[image, None]
    (ranked,) = colour(Images(pixels, None), torch.tensor([target]), torch.Generator())
    shown = reference_image(pixels, Removal("pixels", reference), torch.tensor(given.stages.model.mean))
    generator = torch.Generator().manual_seed(99)  # no pixels are tied, so nothing is random
    found = perturbation_curves(given.classifier, pixels, ranked[None], torch.tensor([[target]]), shown, generator, 5)
    return {"deletion": found.deletion[0, :, 0], "insertion": found.insertion[0, :, 0]}


def test_areas_and_curves_are_those_of_each_image_s_own_maps(given: PerturbationExamination) -> None:
    artifact = given.measure(row(given))
    tensors, metrics = read_tensors(artifact.path), read_result(artifact.path).metrics
    of_class = {"": given.logits.argmax(1), "_true": given.labels}
    for kind in ("deletion", "insertion"):
        for name, targets in of_class.items():
            areas = torch.zeros(6, 2, dtype=torch.float64)
            for column, reference in enumerate(("black", "blur")):
                for image in range(6):
                    curve = direct(given, image, int(targets[image]), reference)[kind]
                    stored = tensors[f"curve_{kind}{name}_{reference}"][image].double()
                    torch.testing.assert_close(stored, curve, rtol=1e-3, atol=1e-5)
                    areas[image, column] = area(curve)
                found = tensors[f"{kind}_auc{name}_{reference}"].double()
                torch.testing.assert_close(found, areas[:, column], rtol=1e-3, atol=1e-5)
                assert metrics[f"{kind}_auc{name}_{reference}"] == pytest.approx(
                    areas[:, column].mean().item(), abs=1e-5
                )
            assert metrics[f"{kind}_auc{name}"] == pytest.approx(areas.mean().item(), abs=1e-5)
    for name in of_class:
        difference = metrics[f"insertion_auc{name}"] - metrics[f"deletion_auc{name}"]
        assert metrics[f"difference_auc{name}"] == pytest.approx(difference)
    wrong = ~given.right
    apart = (tensors["deletion_auc"] - tensors["deletion_auc_true"]).abs() > 1e-4
    assert torch.equal(apart, wrong)


def test_a_result_holds_both_maps_what_the_classifier_said_and_how_it_was_made(given: PerturbationExamination) -> None:
    artifact = given.measure(row(given))
    tensors, result = read_tensors(artifact.path), read_result(artifact.path)
    pixels = given.images.pixels
    torch.testing.assert_close(tensors["logits"], given.classifier(pixels), rtol=1e-4, atol=1e-5)
    first = tensors["logits"].argmax(1)
    assert torch.equal(tensors["targets"], first)
    second = torch.where(first == given.labels, tensors["logits"].argsort(dim=1)[:, -2], given.labels)
    for name, targets in (("attributions", first), ("attributions_second", second)):
        assert torch.equal(tensors[name], colour(Images(pixels, None), targets, torch.Generator()))
    assert (result.role, result.method, result.n_images, result.split) == ("coloured", "perturbation", 6, "test")
    assert result.params["lucky"] == 7.0
    assert result.params["seconds_per_image"] > 0
    assert result.lineage["made_from"] == {"drawn": "colour"}


def test_maps_are_also_compared_with_the_objects_and_with_each_other(given: PerturbationExamination) -> None:
    artifact = given.measure(row(given))
    tensors, metrics = read_tensors(artifact.path), read_result(artifact.path).metrics
    regions = DATA.source.images("test", given.rows, 0).regions
    assert regions is not None
    pairs = [tensors["attributions"], tensors["attributions_second"]]
    pointing, rra = functional.pointing_game(pairs[0], regions), functional.relevance_rank_accuracy(pairs[0], regions)
    assert metrics["pointing_game"] == pytest.approx(pointing.mean().item())
    assert metrics["rra"] == pytest.approx(rra.mean().item())
    for image in range(6):
        expected = np.corrcoef(*(each[image].flatten().double() for each in pairs))[0, 1]
        assert float(tensors["class_correlation"][image]) == pytest.approx(expected, abs=1e-6)


def test_a_constant_map_correlates_with_nothing_and_a_set_without_regions_has_no_objects(
    tmp_path: Path, trained: Trained
) -> None:
    given = examination(tmp_path, data=BLANK, classifier_params=UNFOCUSED)

    def level(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
        return torch.full_like(images.pixels[:, 0], 0.1)

    metrics = read_result(given.measure(row(given, level)).path).metrics
    assert np.isnan(metrics["class_correlation"])
    assert not {"pointing_game", "rra"} & metrics.keys()


def test_maps_of_patches_are_enlarged_and_draws_repeat_for_every_row(tmp_path: Path, trained: Trained) -> None:
    given = examination(tmp_path)

    def patches(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
        return torch.rand(len(targets), 4, 4, generator=generator)

    first, again = given.maps(patches), given.maps(patches)
    assert torch.equal(first.maps, again.maps)
    assert torch.equal(first.maps[:, 0], first.maps[:, 1])
    blocks = [torch.rand(size, 4, 4, generator=torch.Generator().manual_seed(n)) for n, size in enumerate((4, 2))]
    torch.testing.assert_close(first.maps[:, 0], enlarge_map(torch.cat(blocks), (16, 16)))


def test_a_row_is_measured_once_and_anew_where_something_differs(tmp_path: Path, trained: Trained) -> None:
    given = examination(tmp_path)
    made = given.measure(row(given))
    never = row(given, maps=lambda: pytest.fail("it is measured already"))
    assert examination(tmp_path).measure(replace(never, params={})).key == made.key
    others = [given.measure(row(given, **change)).key for change in ({"role": "b"}, {"made_from": {"drawn": "else"}})]
    for change in ({"steps": 4}, {"references": ("blur",)}, {"images": 5}, {"split": "validation"}):
        other = examination(tmp_path, replace(PERTURBATION, **change))
        others.append(other.measure(row(other)).key)
    seeded = examination(tmp_path, seed=1)
    others.append(seeded.measure(row(seeded)).key)
    assert len({made.key, *others}) == 8


@pytest.mark.parametrize("images", [0, 10])
def test_images_beyond_the_split_are_refused_before_anything_is_trained(
    tmp_path: Path, trained: Trained, images: int
) -> None:
    with pytest.raises(UserError) as caught:
        examination(tmp_path, PerturbationParams("test", images, 5, ("black",), 4))
    assert str(caught.value) == (
        f"perturbation.images={images}: the test split of data=shades has 9 images; null takes all of them"
    )
    assert trained.journal == []
