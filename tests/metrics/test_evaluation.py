"""All metrics in one call."""

import math

import pytest
import torch

from xai.core.errors import UserError
from xai.metrics import functional as F
from xai.metrics.evaluation import evaluate_maps

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


def test_small_grids_leave_out_large_k():
    data = results(side=2)
    assert [name for name in evaluate_maps(**data) if name.startswith("iou")] == ["iou@1"]


def test_a_constant_explainer_scores_one_and_undefined():
    data = results()
    data["attributions"].fill_(0.0)
    values = evaluate_maps(**data)
    assert values["e_rmse"] == pytest.approx(1.0, rel=1e-12)
    assert [name for name, value in values.items() if math.isnan(value)] == [
        *("kendall", "iou@1", "iou@5", "iou@10", "centred_correlation", "rma", "pointing_game"),
    ]


def test_misfits_are_refused_in_one_line():
    data = results()
    changes = [
        ({"labels": data["labels"].float()}, "integers"),
        ({"logits": data["logits"][:7]}, "of the same images"),
        ({"logits": data["logits"] * torch.nan}, "the logits of rows 0, 1, 2, 3, 4 and 3 more hold NaN"),
        ({"reference": data["reference"].flatten(1)}, "of one grid"),
        ({"reference": data["reference"] * torch.nan}, "reference maps of rows 0"),
        ({"attributions": data["attributions"] / 0}, "the maps of rows 0"),
        ({"regions": data["regions"].float()}, "boolean"),
        ({"regions": data["regions"][:, :11]}, "multiple"),
    ]
    for change, message in changes:
        with pytest.raises(UserError, match=message) as caught:
            evaluate_maps(**(data | change))
        assert "\n" not in str(caught.value)
