import captum.attr
import pytest
import torch
from torch import Tensor

from tests.explainers.networks import CASES, TARGETS, Answers, Case, check_maps, clip
from tests.explainers.settings import configured, explainer
from xai.core.errors import UserError
from xai.explainers.posthoc.integrated_gradients import IntegratedGradientsParams
from xai.models.maskable import Encoded, MaskableClassifier, Removal, Rows, reference_image


def baseline(case: Case, name: str) -> Tensor:
    """Where the path starts, [4, 3, H, W]."""
    levels = {"black": (0.0, 0.0, 0.0), "mean": case.mean, "0.25": (0.25, 0.25, 0.25)}
    if name == "blur":
        return reference_image(case.images, Removal("pixels", "blur"), torch.zeros(3))
    return torch.tensor(levels[name]).double().reshape(1, 3, 1, 1).expand_as(case.images)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("output", "start", "steps"),
    [("logit", "black", 50), ("probability", "black", 7), ("logit", "mean", 4), ("logit", "blur", 1)],
)
def test_it_is_captums_added_up_over_channels_and_within_patches(
    name: str, output: str, start: str, steps: int
) -> None:
    case = CASES[name]()
    integrated = captum.attr.IntegratedGradients(Answers(case, output)).attribute(
        case.images, baseline(case, start), TARGETS, n_steps=steps, method="gausslegendre"
    )
    settings = {"output": output, "baseline": start, "steps": steps}
    # Captum keeps the weights of the quadrature in float32.
    check_maps(case, "integrated_gradients", integrated.sum(1), "sum", 1e-5, 1e-7, **settings)
    assert integrated.sum(1).lt(0).any()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("output", "start"), [("logit", "black"), ("probability", "mean"), ("logit", "blur"), ("probability", "0.25")]
)
def test_a_map_adds_up_to_the_output_less_the_baselines(name: str, output: str, start: str) -> None:
    case = CASES[name]()
    answers = Answers(case, output)
    ends = answers(case.images) - answers(baseline(case, start))
    expected = ends.gather(1, TARGETS[:, None])[:, 0]
    assert expected.abs().max() > 0.004
    found = explainer("integrated_gradients", case.model, output=output, baseline=start, steps=200)
    # A rectifier has a kink wherever it opens, and the quadrature is for smooth functions.
    error = 0.02 if name == "cnn" else 1e-4
    total = found.attribute(case.images, TARGETS).sum((1, 2))
    assert (total - expected).abs().max() < error * expected.abs().max()


def test_what_is_like_the_baseline_gets_nothing() -> None:
    case = CASES["registers"]()
    case.images[:, :, 4:8, 8:12] = 0.25
    maps = explainer("integrated_gradients", case.model, baseline=0.25).attribute(case.images, TARGETS)
    assert maps[:, 1, 2].eq(0).all()
    assert maps.ne(0).flatten(1).sum(1).eq(15).all()


class Bare(MaskableClassifier):
    """A classifier that normalises nothing: its logits are the mean colours."""

    grid = (2, 2)

    def encode(self, images: Tensor) -> Encoded:
        return (images,)

    def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
        return encoded[0].mean((2, 3))

    def cost(self, kept: int) -> int:
        return 1


def test_only_the_mean_asks_for_a_normalisation() -> None:
    images = clip().images
    for start, level in (("black", 0.0), ("0.25", 0.25)):
        maps = explainer("integrated_gradients", Bare(), baseline=start).attribute(images, TARGETS % 3)
        torch.testing.assert_close(maps.sum((1, 2)), images[range(4), TARGETS % 3].mean((1, 2)) - level)
    with pytest.raises(UserError) as caught:
        explainer("integrated_gradients", Bare(), baseline="mean")
    assert str(caught.value) == (
        "baseline=mean: a Bare does not say what it normalises with, use black, blur or a grey level"
    )


def test_a_grey_level_has_one_spelling() -> None:
    found = configured("integrated_gradients", baseline=0.250)
    assert found == configured("integrated_gradients", baseline="0.25")
    assert isinstance(found, IntegratedGradientsParams)
    assert found.baseline == "0.25"
