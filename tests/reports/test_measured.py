import math

import pytest
import torch

from tests.reports.removal_rows import IMAGES, evidence, measured, row, write
from xai.core.errors import UserError
from xai.reports.measured import by_run, image_values, read_evidence


def test_the_mean_of_the_images_is_the_metric_of_the_result():
    salvage = row("salvage")
    for metric in ("lif", "mif", "r_lif", "r_mif", "srg", "r_srg", "accuracy"):
        values = salvage.per_image(metric)
        assert values.shape == (IMAGES,)
        assert values.mean().item() == pytest.approx(salvage.result.metrics[metric], abs=1e-6)


def test_a_gain_is_lif_less_mif_of_each_image_and_size():
    tensors = {name: torch.rand(2, 3) for name in ("lif", "mif", "r_lif", "r_mif")}
    one = measured("rise", tensors=tensors)
    assert torch.equal(one.curve("srg"), tensors["lif"].double() - tensors["mif"].double())
    assert torch.equal(one.curve("r_srg"), tensors["r_lif"].double() - tensors["r_mif"].double())


def test_agreement_is_with_the_classifier_and_accuracy_with_the_label():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    classifier = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    one = measured(
        "salvage", tensors={"logits": logits, "classifier_logits": classifier, "labels": torch.tensor([1, 1, 1])}
    )
    assert one.per_image("accuracy").tolist() == [0, 1, 1]
    assert one.per_image("agreement").tolist() == [1, 0, 1]


def test_what_was_not_kept_is_none_and_a_tensor_of_its_name_is_taken():
    one = measured("rise", tensors={"rma": torch.tensor([0.5, float("nan")]), "lif": torch.zeros(2, 3)})
    assert [one.per_image(name) for name in ("rra", "srg", "accuracy", "agreement")] == [None] * 4
    assert one.per_image("rma")[0] == 0.5


def test_the_mean_is_that_of_the_result_else_that_of_its_images():
    one = measured("rise", tensors={"rma": torch.tensor([0.5, 0.7, float("nan")])}, metrics={"rra": 0.3})
    assert one.mean("rra") == 0.3
    assert one.mean("rma") == pytest.approx(0.6)
    assert math.isnan(one.mean("srg"))


def test_values_of_the_same_images_are_averaged_and_those_of_others_stand_side_by_side():
    labels = {"labels": torch.tensor([0, 1, 2])}
    values = [torch.tensor([0.0, 1.0, float("nan")]), torch.tensor([1.0, 2.0, float("nan")])]
    same = [measured("rise", seed, tensors=labels) for seed in range(2)]
    assert image_values(same, values).tolist() == [0.5, 1.5]
    other = [same[0], measured("rise", 1, tensors={"labels": labels["labels"].flip(0)})]
    assert image_values(other, values).tolist() == [0, 1, 1, 2]


def test_rows_are_paired_by_model_and_seed():
    rows = [measured("rise", seed) for seed in (2, 0)] + [measured("salvage", 1), measured("rise", 0, model="other")]
    assert set(by_run(rows, "rise")) == {("vit_tiny", 2), ("vit_tiny", 0), ("other", 0)}


def test_evidence_is_read_from_all_runs_and_told_apart_by_data(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, evidence(seeds=1, data=(name,)))
    found = read_evidence([tmp_path / "a", tmp_path / "b"])
    parts = found.by_data()
    assert list(parts) == ["a", "b"]
    whole = evidence(seeds=1, data=("b",))
    assert len(parts["b"].rows) == len(whole.rows)
    assert sorted(one.result.params["share"] for one in parts["b"].length) == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    assert {one.result.data for one in (*parts["b"].rows, *parts["b"].length)} == {"b"}
    salvage = by_run(parts["a"].rows, "salvage")["vit_tiny", 0]
    assert torch.equal(salvage.tensors["lif"], row("salvage", data="a").tensors["lif"])


def test_a_folder_without_results_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no result\.json under results of .*; run first"):
        read_evidence([tmp_path])
