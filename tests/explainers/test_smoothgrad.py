import captum.attr
import pytest
import torch
from torch import Tensor

from tests.explainers.networks import CASES, TARGETS, Answers, Case, check_maps
from tests.explainers.settings import configured, explainer
from xai.explainers.rows import load_row

CAPTUM = {"mean": "smoothgrad", "square": "smoothgrad_sq", "variance": "vargrad"}
STATISTICS = pytest.mark.parametrize("statistic", CAPTUM)
COPIES, NOISE = 5, 0.2


def noise(case: Case) -> Tensor:
    """What the generator of a call without one gives, copy by copy."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(case.images.shape[1:], generator=generator).double() for _ in range(COPIES)]
    return NOISE * torch.stack(drawn)


def by_captum(case: Case, output: str, statistic: str, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Of captum's own noise tunnel, with our noise in the place of its own: [B, H, W]."""
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(Answers(case, output)))

    def noisy(pixels: Tensor, stdev: float, copies: int) -> Tensor:
        reach = [float(image.max() - image.min()) for image in pixels]
        return torch.stack(
            [image + size * one for image, size in zip(pixels, reach, strict=True) for one in noise(case)]
        )

    monkeypatch.setattr(tunnel, "_add_noise_to_input", noisy)
    found = tunnel.attribute(
        case.images.clone(), nt_type=CAPTUM[statistic], nt_samples=COPIES, target=TARGETS, abs=False
    )
    return found.abs().amax(1)


@STATISTICS
@pytest.mark.parametrize(("family", "output"), [("clip", "logit"), ("registers", "probability"), ("cnn", "logit")])
def test_it_is_captums_noise_tunnel_around_the_gradient(
    statistic: str, family: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[family]()
    settings = {"samples": COPIES, "noise": NOISE, "statistic": statistic, "output": output}
    check_maps(case, "smoothgrad", by_captum(case, output, statistic, monkeypatch), "mean", 1e-6, 1e-9, **settings)


def test_the_noise_is_that_of_the_generator_and_goes_on_with_it() -> None:
    case, generator = CASES["cnn"](), torch.Generator().manual_seed(5)
    ours = explainer("smoothgrad", case.model, samples=3)
    first, second = (ours.attribute(case.images, TARGETS, generator) for _ in range(2))
    assert not torch.allclose(first, second)
    torch.testing.assert_close(ours.attribute(case.images, TARGETS, torch.Generator().manual_seed(5)), first)


def test_the_rows_are_the_papers() -> None:
    assert {name: load_row(name).params.statistic for name in ("smoothgrad", "smoothgrad_squared", "vargrad")} == {  # type: ignore[attr-defined]
        "smoothgrad": "mean",
        "smoothgrad_squared": "square",
        "vargrad": "variance",
    }
    assert (configured("smoothgrad").samples, configured("smoothgrad").noise) == (50, 0.15)  # type: ignore[attr-defined]
