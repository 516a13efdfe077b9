"""Rows of SALVAGE, ViT-Shapley and FastSHAP with a network of their own, beside a classifier that is only asked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.study.engine import MODEL, asked, counted, made, rows, study
from tests.study.shades import DATA
from tests.toolbox import cases, refusal
from xai.core.errors import UserError
from xai.papers.salvage.explainers import networks_of
from xai.study.maps import explain, key
from xai.study.mosaic import mosaic_of
from xai.study.study import open_metrics

FIT = {"steps": 6, "epochs": None, "batch_size": 6, "learning_rate": 3e-3, "weight_decay": 0.0, "warmup": 0.1}
VIT: dict[str, Any] = {"network": "vit_tiny", "masks": 4, "snapshots": [0.5], "fit": FIT}
BESIDE: dict[str, Any] = {
    "salvage": VIT,
    "vit_shapley": VIT,
    "fast_shap": {"network": "cnn_tiny", "masks": 4, "width": 16, "fit": FIT},
}


@pytest.mark.parametrize("name", list(BESIDE))
def test_an_explainer_is_trained_beside_a_clip_which_is_asked_and_left_as_it_is(name: str, tmp_path: Path) -> None:
    asked.clear()
    found = study(tmp_path, [name], ["localisation"], changes=BESIDE)
    scores = found.run().scores
    assert made(found) == sorted([name, "maps", "scores"])
    # Every image of the training was put to it, with all its coalitions at once.
    assert sum(asked) >= FIT["steps"] * FIT["batch_size"]
    assert scores.value.between(0, 1).sum() > len(scores) / 2
    again = study(tmp_path, [name], ["localisation"], changes=BESIDE)
    assert again.run().scores.value.equals(scores.value)
    assert made(again) == []


def test_it_belongs_to_the_classifier_that_was_asked(tmp_path: Path) -> None:
    """Two classifiers of one build: each has a network of its own, and each is made once."""
    (first, _), (row,) = study(tmp_path, []).cases[0], rows(["salvage"], BESIDE)
    other = replace(first, model=replace(MODEL, identify=lambda: "weights 2", make=_other))
    assert key(first, row) != key(other, row)
    own, others = explain(first, row).attributions, explain(other, row).attributions
    assert own.shape == others.shape == (9, 4, 4)
    assert not torch.equal(own, others)
    assert sorted(each.kind for each in first.runtime.store.made).count("salvage") == 2


def test_it_belongs_to_what_it_learned_from_and_to_its_network(tmp_path: Path) -> None:
    (first, _), (row,) = study(tmp_path, []).cases[0], rows(["salvage"], BESIDE)
    other = replace(first, data=replace(DATA, spec={**DATA.spec, "of": "another year"}))
    learned = [row.entry.prepare(case, row.params).made_from["salvage"] for case in (first, other)]
    assert learned[0] != learned[1]
    (warmer,) = rows(["salvage"], {"salvage": {**VIT, "temperature": 2.0}})
    said = [each.entry.prepare(first, each.params).made_from for each in (row, warmer)]
    assert [each.get("temperature") for each in said] == [None, 2.0]
    networks = networks_of(first, row.params)
    deeper = replace(networks, model=replace(networks.model, name="another"))
    assert networks.surrogate.key != deeper.surrogate.key


@pytest.mark.parametrize(("name", "changes"), [("salvage", VIT), ("expected_gradients", {"samples": 2})])
def test_on_a_probe_it_has_learned_from_the_data_set_itself(name: str, changes: Any, tmp_path: Path) -> None:
    found = study(tmp_path, [name], ["localisation"], changes={name: changes})
    case, metrics = found.cases[0]
    found.cases = [(case, metrics), (mosaic_of(case), open_metrics(["grid_pointing"], {}))]
    scores = found.run().scores
    assert set(scores.metric[scores.case == "grid"]) == {"grid_pointing"}
    assert made(found).count("salvage") == (name == "salvage")


def test_what_baselines_are_drawn_from_is_told_where_it_is_another_data_set(tmp_path: Path) -> None:
    (row,), (case, _) = rows(["expected_gradients"], {}), study(tmp_path, []).cases[0]
    made_from = [row.entry.prepare(each, row.params).made_from for each in (case, case.second, mosaic_of(case))]
    assert [each.get("from") for each in made_from] == [None, None, DATA.spec]


def test_a_prior_on_a_probe_belongs_to_the_case_that_it_was_learned_in(tmp_path: Path) -> None:
    (row,) = rows(["position_prior"], {"position_prior": {"of": "saliency"}})
    (first, _) = study(tmp_path, []).cases[0]
    probe = replace(DATA, name="probe", spec={"name": "probe"})
    homes = [replace(first, params=replace(first.params, targets=each)) for each in ("label", "predicted")]
    probes = [replace(home, data=probe, params=homes[0].params, only=(0, 1), home=home) for home in homes]
    assert key(probes[0], row) != key(probes[1], row)


def _other(removal: Any) -> Any:
    model = counted(removal)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return model


@pytest.mark.parametrize(("name", "changes", "message"), cases(__file__, "refused.txt"))
def test_what_cannot_be_is_refused_before_anything_is_trained(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    found = study(tmp_path, [name], changes={name: {**BESIDE[name], **changes}}, strict=True)
    assert message in refusal(found.run)
    assert made(found) == []


def test_a_data_set_without_images_to_learn_from_is_refused(tmp_path: Path) -> None:
    class NoTraining(type(DATA.source)):  # type: ignore[misc]
        def labels(self, split: str) -> Any:
            return super().labels(split)[: 0 if split == "train" else None]

    data = replace(DATA, source=NoTraining())
    with pytest.raises(UserError, match="data=shades has no images to learn from"):
        study(tmp_path, ["salvage"], changes=BESIDE, data=data, strict=True).run()
