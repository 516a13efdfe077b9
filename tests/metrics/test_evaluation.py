"""All metrics in one call."""

import math

import pytest
import torch

from xai.core.errors import UserError
from xai.metrics import functional as F
from xai.metrics.evaluation import evaluate_maps, per_image

ORDER = [
    *("accuracy", "e_rmse", "kendall", "iou@1", "iou@5", "iou@10"),
    *("centred_correlation", "rma", "pointing_game"),
]


def results(images=8, side=4):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(images, 5, generator=generator)
    labels = logits.sort(1).indices[:, -1]
    labels[:2] = (labels[:2] + 1) % 5
    return {
        "attributions": torch.randn(images, side, side, generator=generator),
        "reference": torch.randn(images, side, side, generator=generator),
        "regions": torch.rand(images, 3 * side, 3 * side, generator=generator) > 0.9,
        "logits": logits,
        "labels": labels,
    }


def test_values_are_those_of_the_functions_in_the_order_promised():
    data = results()
    values = evaluate_maps(**data)
    a, r = data["attributions"].flatten(1), data["reference"].flatten(1)
    expected = {
        "accuracy": 6 / 8,
        "e_rmse": F.e_rmse(a, r).item(),
        "kendall": F.kendall(a, r).mean().item(),
        **{f"iou@{k}": F.iou_at_k(a, r, k).mean().item() for k in (1, 5, 10)},
        "centred_correlation": F.centred_correlation(a, r).mean().item(),
        "rma": F.relevance_mass_accuracy(data["attributions"], data["regions"]).mean().item(),
        "pointing_game": F.pointing_game(data["attributions"], data["regions"]).mean().item(),
    }
    assert list(values) == ORDER
    assert all(type(value) is float for value in values.values())
    assert values == pytest.approx(expected, rel=1e-12)


def test_per_image_values_average_to_the_evaluation():
    data = results()
    data["attributions"][0] = 0.5
    data["regions"][1] = False
    values, images = evaluate_maps(**data), per_image(**data)
    assert list(images) == ["squared_error" if name == "e_rmse" else name for name in ORDER]
    assert all(value.shape == (8,) and value.dtype == torch.float64 for value in images.values())
    averages = {name: value.nanmean().item() for name, value in images.items()}
    averages["e_rmse"] = math.sqrt(averages.pop("squared_error"))
    assert values == pytest.approx(averages, rel=1e-12)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["logits", "labels"], ORDER[:1]),
        (["reference"], ORDER[1:7]),
        (["regions"], ORDER[7:]),
        (["labels", "logits", "regions"], [ORDER[0], *ORDER[7:]]),
        ([], []),
    ],
)
def test_only_what_the_inputs_allow(given, names):
    data = {name: value for name, value in results().items() if name in ["attributions", *given]}
    assert list(evaluate_maps(**data)) == names
    assert [name.replace("squared_error", "e_rmse") for name in per_image(**data)] == names


def test_small_grids_leave_out_large_k():
    data = results(side=2)
    assert [name for name in evaluate_maps(**data) if name.startswith("iou")] == ["iou@1"]
    assert [name for name in per_image(**data) if name.startswith("iou")] == ["iou@1"]


def test_a_constant_explainer_scores_one_and_undefined():
    data = results()
    data["attributions"].fill_(0.0)
    values = evaluate_maps(**data)
    assert values["e_rmse"] == pytest.approx(1.0, rel=1e-12)
    assert [name for name, value in values.items() if math.isnan(value)] == [
        *("kendall", "iou@1", "iou@5", "iou@10", "centred_correlation", "rma", "pointing_game"),
    ]


def test_labels_left_over_from_no_logits_and_other_misfits_are_refused():
    data = results()
    changes = [
        ({"labels": None}, "only one of the two"),
        ({"logits": None}, "only one of the two"),
        ({"labels": data["labels"].float()}, "integers"),
        ({"labels": data["labels"][:7]}, "integers"),
        ({"logits": data["logits"][:7]}, "integers"),
        ({"logits": data["logits"] * torch.nan}, "NaN"),
        ({"reference": data["reference"].flatten(1)}, "that of the attributions"),
        ({"reference": data["reference"] * torch.nan}, "8 of 8 images"),
        ({"attributions": data["attributions"].flatten(1)}, r"\[N, h, w\]"),
        ({"attributions": data["attributions"][:0]}, r"\[N, h, w\]"),
        ({"attributions": data["attributions"] / 0}, "8 of 8 images"),
        ({"regions": data["regions"].float()}, "boolean"),
        ({"regions": data["regions"][:, :11]}, "multiple"),
    ]
    for change, message in changes:
        for function in (evaluate_maps, per_image):
            with pytest.raises(UserError, match=message) as caught:
                function(**(data | change))
            assert "\n" not in str(caught.value)
