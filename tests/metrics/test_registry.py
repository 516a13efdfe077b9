"""The registry of metrics: every family against brute force, and what is the same for all of them."""

import math
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.toolbox import refusal, there
from xai.core.errors import UserError
from xai.metrics import functional as F
from xai.metrics import registry
from xai.metrics.agreement import AgreementParams
from xai.metrics.localisation import LocalisationParams
from xai.metrics.perturbation import PerturbationParams
from xai.metrics.registry import Column, Measured
from xai.metrics.removal import RemovalParams
from xai.metrics.streaming import measured
from xai.models.maskable import Removal, reference_image

IMAGES, SIDE, CLASSES = 6, 8, 4
MEAN = (0.2, 0.5, 0.7)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Network(nn.Module):
    """A smooth function of all pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return (images.flatten(1) @ drawn(3 * SIDE**2, 16, seed=5) / 10).tanh() @ drawn(16, CLASSES, seed=6) * 2


class Game:
    """Each patch has a worth, and so have neighbours; of 2 x 2 patches."""

    players = 4

    def value(self, coalitions: Tensor) -> Tensor:
        present = coalitions.double()
        worth = present @ torch.tensor([0.1, 0.3, -0.2, 0.4], dtype=torch.float64)
        return worth + present[..., 0] * present[..., 1]


def everything(**changes: object) -> Measured:
    """Six images: predictions are explained, and those of images 0, 2 and 3 are wrong."""
    images = torch.rand(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    predicted = Network()(images).argsort(dim=1, descending=True)
    wrong = torch.tensor([True, False, True, True, False, False])
    labels = torch.where(wrong, predicted[:, 2], predicted[:, 0])
    what: dict[str, object] = {
        "images": images,
        "labels": labels,
        "targets": predicted[:, 0],
        "second_targets": torch.where(wrong, labels, predicted[:, 1]),
        "network": Network(),
        "judge": lambda images: Network()(1 - images),
        "game": Game(),
        "mean": MEAN,
        "regions": torch.rand(IMAGES, SIDE, SIDE, generator=torch.Generator().manual_seed(2)) > 0.7,
        "cells": torch.arange(SIDE).lt(3).expand(IMAGES, SIDE, SIDE),
        "logits": drawn(IMAGES, CLASSES, seed=7),
        "classifier_logits": drawn(IMAGES, CLASSES, seed=8),
    }
    names = ("maps", "second", "reference", "reference_second")
    what |= {name: drawn(IMAGES, 2, 2, seed=seed) for seed, name in enumerate(names, 10)}
    what["again"] = [drawn(IMAGES, 2, 2, seed=seed) for seed in (20, 21)]
    return measured(**(what | changes))


def values(name: str, block: Measured | None = None, params: object = None) -> dict[str, Tensor]:
    return registry.compute(registry.entry(name), block or everything(), params)


# What is the same for all of them.


def test_every_metric_gives_a_number_an_image_for_every_column_and_a_line_for_every_curve() -> None:
    for name in registry.names():
        entry, found = registry.entry(name), values(name)
        assert set(found) == {c.name for c in entry.columns_of(entry.params())} | set(entry.curves_of(entry.params()))
        assert all(value.dtype == torch.float64 for value in found.values())
        for column in entry.columns_of(entry.params()):
            assert found[column.name].shape == ((1,) if name == "classification_quality" else (IMAGES,))
            assert registry.metric_of(column.name) is entry
            assert registry.families()[column.name] == entry.name
            assert registry.columns()[column.name].label == column.label
    assert len(registry.columns()) == len({column.label for column in registry.columns().values()})


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("broken", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_gets_no_value_from_any_metric(name: str, broken: float) -> None:
    for what in ("maps", "second", "reference", "reference_second", "logits", "classifier_logits"):
        block = everything(rows=torch.arange(30, 30 + IMAGES))
        getattr(block, what)[4].view(-1)[0] = broken
        assert "of rows 34 hold NaN or infinity" in refusal(values, name, block)


def test_neither_images_nor_networks_are_asked_for_by_a_metric_of_maps_alone() -> None:
    def never(*_: object) -> Any:
        pytest.fail("it was asked for")

    there = {"maps": drawn(IMAGES, 2, 2), "rows": torch.arange(IMAGES)}
    parts: dict[str, Any] = {name: partial(there.get, name) for name in Measured.__annotations__}
    parts |= dict.fromkeys(("images", "network", "judge", "regions", "cells"), never)
    found = values("complexity", Measured(never, never, never, **parts))
    assert found["entropy"].isfinite().all()


def test_a_classifier_whose_answers_are_not_finite_is_refused() -> None:
    class Broken(Network):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * torch.nan

    class BrokenGame(Game):
        def value(self, coalitions: Tensor) -> Tensor:
            return super().value(coalitions) * torch.inf

    with pytest.raises(UserError, match="answers with pixels replaced of rows 0, 1, 2, 3, 4 and 1 more"):
        values("perturbation", everything(network=Broken()), PerturbationParams(3))
    for name in ("removal", "infidelity", "top_patches", "monotonicity"):
        with pytest.raises(UserError, match="answers with patches removed of rows 0"):
            values(name, everything(game=BrokenGame()), RemovalParams(1) if name == "removal" else None)


def test_what_is_missing_is_said_in_one_line() -> None:
    available = set(registry.NEEDS) - {"regions", "second"}
    said = {name: registry.missing(registry.entry(name), available) for name in registry.names()}
    assert said["localisation"] == "localisation is left out: the data set has no regions of objects"
    assert said["class_correlation"] == "class_correlation is left out: there are no maps of a second class"
    left_out = {name for name, reason in said.items() if reason}
    assert {"class_correlation", "contrast", "localisation"} <= left_out
    assert not {"removal", "perturbation", "agreement_with_reference", "classification"} & left_out
    assert registry.missing(registry.columns()["deletion_auc"], available) is None
    assert "second class" in (registry.missing(registry.columns()["deletion_auc_true"], available) or "")
    pixels = [n for n in registry.names() if registry.missing(registry.entry(n), set(registry.NEEDS), "pixel")]
    assert {"removal", "agreement_with_reference", "centred_correlation"} <= set(pixels)
    assert not {"perturbation", "localisation", "class_correlation"} & set(pixels)
    for name in ("localisation", "class_correlation"):
        assert "is left out" in refusal(values, name, everything(regions=None, second=None))


def test_columns_that_need_more_are_left_out_where_it_is_not_there() -> None:
    assert set(values("classification", everything(labels=None))) == {"agreement"}
    assert set(values("classification", everything(classifier_logits=None))) == {"accuracy"}
    assert not any("true" in name for name in values("perturbation", everything(second=None)))
    assert not any("true" in name for name in values("perturbation", everything(labels=None)))
    assert "reference maps of a second class" in refusal(values, "contrast", everything(reference_second=None))


def test_a_metric_of_ones_own_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    peak = Column("peak", "Peak", "The largest value of the map.")

    @registry.metric("peak", columns=[peak], needs={"maps"})
    def largest(block: Measured, params: object) -> dict[str, Tensor]:
        return {"peak": registry.given(block.maps).flatten(1).amax(1)}

    assert registry.names()[-1] == "peak"
    assert torch.equal(values("peak")["peak"], registry.given(everything().maps).amax((1, 2)).double())
    for name, columns, needs, message in (
        ("peak", [], ["maps"], "registered already"),
        ("rma", [registry.columns()["rma"]], ["maps"], "and so is rma"),
        ("new", [], ["mops"], "mops"),
    ):
        with pytest.raises(ValueError, match=message):
            registry.metric(name, columns=columns, needs=needs)(largest)
    largest.__module__ = "__main__"  # a cell of a notebook, which is run twice
    for _ in range(2):
        registry.metric("cell", columns=[Column("cell", "", "")], needs={"maps"})(largest)
    registry.metric("promise", columns=[Column("kept", "", "")], needs={"maps"})(lambda block, params: {})
    with pytest.raises(ValueError, match="has declared"):
        values("promise")
    registry.metric("scalar", columns=[Column("mean", "", "")], needs={"maps"})(
        lambda block, params: {"mean": registry.given(block.maps).mean()}
    )
    with pytest.raises(ValueError, match="as mean of 6 images"):
        values("scalar")


def test_unknown_names_are_refused_with_the_nearest() -> None:
    assert "did you mean removal" in refusal(registry.entry, "remuval")
    assert "did you mean r_srg" in refusal(registry.metric_of, "r_srgg")


def test_averages_leave_out_what_is_undefined_and_an_rmse_is_a_root() -> None:
    of_images = torch.tensor([3.0, math.nan, 4.0])
    assert registry.columns()["rma"].average(of_images) == 3.5
    assert registry.columns()["e_rmse"].average(of_images).item() == pytest.approx(math.sqrt(12.5))


def test_the_order_is_that_of_the_families_whichever_is_imported_first() -> None:
    show = "import xai.metrics.classification; from xai.metrics import registry; print(registry.names())"
    command = [sys.executable, "-c", show]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found == f"{registry.names()}\n"


# Chance.


def test_chance_levels_are_those_of_random_maps() -> None:
    block, draws = everything(), 400
    random = [everything(maps=maps, second=second) for maps, second in drawn(draws, 2, IMAGES, 2, 2, seed=20)]
    for name in ("rma", "rra", "pointing_game", "grid_pointing", "iou@1", "kendall", "contrast"):
        column, entry = registry.columns()[name], registry.metric_of(name)
        found = torch.stack([values(entry.name, each)[name] for each in random])
        torch.testing.assert_close(found.nanmean(0), column.chance_of(block), atol=0.1, rtol=0)


def test_chance_levels_of_regions_and_classes() -> None:
    block = everything()
    regions = registry.given(block.regions)
    share = F.patch_coverage(regions, (2, 2)).flatten(1)
    share = share[share.sum(1) > 0]
    levels = {"rma": share.mean().item(), "pointing_game": (share > 0).double().mean().item()}
    levels |= {"e_rmse": 2**0.5, "kendall": 0.0, "iou@1": 0.25}
    for name in levels:
        chance = there(registry.columns()[name].chance_of(block))
        assert chance.nanmean().item() == pytest.approx(levels[name])
    localisation = registry.entry("localisation")
    enlarged = localisation.columns_of(localisation.settings({"enlarge": True}))[-1]
    assert (enlarged.name, enlarged.chance_of(block).nanmean().item()) == (
        "pointing_game",
        pytest.approx(levels["rma"]),
    )
    assert torch.equal(registry.columns()["accuracy"].chance_of(block), torch.full((6,), 0.25, dtype=torch.float64))
    assert registry.columns()["lif"].chance_of(block) is None
    none = everything(regions=torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.bool))
    assert registry.columns()["pointing_game"].chance_of(none).isnan().all()


# The families.


def test_without_masks_the_relative_scores_are_left_out_and_the_others_stay() -> None:
    few, all_six = (values("removal", params=RemovalParams(masks)) for masks in (0, 3))
    assert set(few) == {"srg", "lif", "mif", "curve_lif", "curve_mif"}
    assert all(torch.equal(few[name], all_six[name]) for name in few)
    entry = registry.entry("removal")
    assert entry.passes is not None
    assert entry.passes(RemovalParams(0), 36) == 1 + 2 * 35


def test_removal_is_the_mean_of_its_curves_with_the_same_draws_for_every_row() -> None:
    params = RemovalParams(masks=3)
    found, block = values("removal", params=params), everything()
    lif, _ = F.ranked_curves(Game().value, registry.given(block.maps).flatten(1), block.generator)
    assert torch.equal(found["curve_lif"], lif)
    assert torch.equal(found["lif"], lif.mean(1))
    assert torch.equal(found["srg"], found["lif"] - found["mif"])
    assert torch.equal(found["r_srg"], found["r_lif"] - found["r_mif"])
    torch.testing.assert_close(found["r_mif"], found["curve_r_mif"].mean(1))
    again = values("removal", params=params)
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert values("removal", everything(maps=torch.ones(IMAGES, 2, 2)), params)["srg"].isfinite().all()
    assert "another grid" in refusal(values, "removal", everything(maps=drawn(IMAGES, 4, 4)), params)


def curve(image: Tensor, map_: Tensor, target: int, reference: str, kind: str, steps: int) -> list[float]:
    """Probabilities of a class as pixels go or come, one image after the other."""
    ranked = F.enlarge_map(map_[None], (SIDE, SIDE)).flatten().argsort(descending=True)
    shown = reference_image(image[None], Removal("pixels", reference), torch.tensor(MEAN))[0]
    found = []
    for share in np.linspace(0, 1, steps):
        changed = torch.zeros(SIDE**2, dtype=torch.bool)
        changed[ranked[: round(share * SIDE**2)]] = True
        away = changed.reshape(SIDE, SIDE) ^ (kind == "insertion")
        found.append(Network()(torch.where(away, shown, image)[None]).softmax(1)[0, target].item())
    return found


@pytest.mark.parametrize("references", [("black", "mean", "blur"), ("blur",)])
def test_deletion_and_insertion_follow_the_map_of_each_class(references: tuple[str, ...]) -> None:
    params = PerturbationParams(5, references)
    # The enlarged maps have ties at their borders; maps of pixels have none.
    maps, second = drawn(IMAGES, SIDE, SIDE, seed=30), drawn(IMAGES, SIDE, SIDE, seed=31)
    block = everything(maps=maps, second=second)
    found, labels = values("perturbation", block, params), registry.given(block.labels)
    for kind in ("deletion", "insertion"):
        for target in ("", "_true"):
            areas = []
            for reference in references:
                expected = []
                for i, image in enumerate(block.images):
                    other = target and labels[i] != block.targets[i]
                    asked, map_ = (labels[i], second[i]) if other else (block.targets[i], maps[i])
                    expected.append(curve(image, map_, int(asked), reference, kind, 5))
                torch.testing.assert_close(
                    found[f"curve_{kind}{target}_{reference}"],
                    torch.tensor(expected, dtype=torch.float64),
                    rtol=1e-4,
                    atol=1e-5,
                )
                areas.append(np.trapezoid(expected, dx=0.25, axis=1))
                np.testing.assert_allclose(found[f"{kind}_auc{target}_{reference}"], areas[-1], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found[f"{kind}_auc{target}"], np.mean(areas, axis=0), rtol=1e-4, atol=1e-5)
    for target in ("", "_true"):
        difference = found[f"insertion_auc{target}"] - found[f"deletion_auc{target}"]
        assert torch.equal(found[f"difference_auc{target}"], difference)
    differs = (found["deletion_auc"] != found["deletion_auc_true"]).tolist()
    assert differs == [True, False, True, True, False, False]


def test_maps_of_patches_are_enlarged_and_a_second_class_that_is_not_the_true_one_says_nothing_of_it() -> None:
    maps, block = drawn(IMAGES, 2, 2, seed=30), everything()
    params = PerturbationParams(3, ("black",))
    enlarged = everything(maps=F.enlarge_map(maps, (SIDE, SIDE)), second=None)
    small = values("perturbation", everything(maps=maps, second=None), params)
    assert torch.equal(small["deletion_auc"], values("perturbation", enlarged, params)["deletion_auc"])
    second = registry.given(block.second_targets).clone()
    second[2] = (second[2] + 1) % CLASSES
    found = values("perturbation", everything(second_targets=second), params)
    assert found["difference_auc_true"].isnan().tolist() == [False, False, True, False, False, False]
    assert not found["difference_auc"].isnan().any()


def test_maps_of_two_classes_are_correlated_pixel_by_pixel() -> None:
    block = everything()
    maps, second = registry.given(block.maps), registry.given(block.second)
    second[3] = 0.1
    expected = [np.corrcoef(*(F.enlarge_map(m[i, None], (SIDE, SIDE)).flatten() for m in (maps, second)))[0, 1]
                for i in range(IMAGES) if i != 3]  # fmt: skip
    found = values("class_correlation", block)["class_correlation"]
    assert found[3].isnan()
    np.testing.assert_allclose(found[[0, 1, 2, 4, 5]], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("enlarge", [False, True])
def test_localisation_is_of_patches_or_of_the_enlarged_map(enlarge: bool) -> None:
    block = everything()
    maps, regions = registry.given(block.maps), registry.given(block.regions)
    found, read = values("localisation", block, LocalisationParams(enlarge)), maps
    if enlarge:
        read = F.enlarge_map(maps, (SIDE, SIDE))
    torch.testing.assert_close(found["rma"], F.relevance_mass_accuracy(read, regions), equal_nan=True)
    torch.testing.assert_close(found["rra"], F.relevance_rank_accuracy(read, regions), equal_nan=True)
    torch.testing.assert_close(found["pointing_game"], F.pointing_game(read, regions), equal_nan=True)


def test_grid_pointing_is_the_share_in_the_cell() -> None:
    block = everything(maps=drawn(IMAGES, SIDE, SIDE))
    expected = F.relevance_mass_accuracy(registry.given(block.maps), registry.given(block.cells))
    torch.testing.assert_close(values("grid_pointing", block)["grid_pointing"], expected)


def test_agreement_with_the_reference() -> None:
    block = everything()
    found = values("agreement_with_reference", block, AgreementParams((1, 3, 5)))
    names = ("maps", "reference", "second", "reference_second")
    maps, reference, second, other = (getattr(block, name).flatten(1).double() for name in names)
    torch.testing.assert_close(found["e_rmse"], F.squared_explanation_error(maps, reference).sqrt())
    torch.testing.assert_close(found["iou@3"], F.iou_at_k(maps, reference, 3))
    assert found["iou@5"].isnan().all()
    centre, apart = (values(name, block)[name] for name in ("centred_correlation", "contrast"))
    torch.testing.assert_close(centre, F.centred_correlation(maps, reference))
    torch.testing.assert_close(apart, F.contrast(maps, second, reference, other))
    differ = [np.corrcoef(maps[i] - second[i], reference[i] - other[i])[0, 1] for i in range(IMAGES)]
    np.testing.assert_allclose(apart, differ, rtol=1e-6)
    assert registry.metric_of("iou@3", {"ks": [3]}).name == "agreement_with_reference"


def test_maps_that_do_not_depend_on_the_class_have_no_contrast() -> None:
    maps = drawn(IMAGES, 2, 2, seed=40)
    block = everything(maps=maps, second=maps * (1 + 1e-7))
    assert values("contrast", block)["contrast"].isnan().all()
    best = everything()
    same = everything(maps=best.reference, second=best.reference_second)
    torch.testing.assert_close(values("contrast", same)["contrast"].mean().item(), 1.0)


def test_classification_counts_images() -> None:
    block = everything()
    logits, other, labels = (registry.given(t) for t in (block.logits, block.classifier_logits, block.labels))
    found = values("classification", block)
    assert found["accuracy"].tolist() == [float(a == b) for a, b in zip(logits.argmax(1), labels, strict=True)]
    assert found["agreement"].tolist() == [
        float(a == b) for a, b in zip(logits.argmax(1), other.argmax(1), strict=True)
    ]
