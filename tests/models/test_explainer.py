from typing import TypeVar, get_args

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.models.tiny_vit import MEAN, STD, network, normalised, pictures
from tests.toolbox import refusal, there
from xai.explainers.learned.networks import Salvage
from xai.methods.salvage import shapley_distribution
from xai.models.explainer import (
    Decoder,
    ExplainerNetwork,
    LinearDecoder,
    MaskTransformer,
    SalvageNetwork,
    ShapleyNetwork,
    build_decoder,
    column,
)
from xai.models.families import seeded

GRID = (2, 8)
PLAYERS = 16
Network = TypeVar("Network", bound=ExplainerNetwork)


def backbone() -> VisionTransformer:
    """Oblong, so that down and across cannot be taken for one another."""
    return network(img_size=(8, 32), patch_size=(4, 4), reg_tokens=2)


def explainer(kind: type[Network], scores: int) -> Network:
    """In float64, trained to anything but zero."""
    made = kind(backbone(), MaskTransformer(24, scores, 1, 3), MEAN, STD).double().eval()
    generator = torch.Generator().manual_seed(0)
    for value in made.decoder.parameters():
        value.data += 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return made.requires_grad_(False)


def images(count: int = 3) -> Tensor:
    return pictures(backbone(), count)


def test_the_decoder_reads_the_patch_tokens_of_normalised_images() -> None:
    plain = backbone()
    expected = plain.forward_features(normalised(images()))[:, 3:]
    made = ExplainerNetwork(backbone(), nn.Identity(), MEAN, STD)
    torch.testing.assert_close(made(images()), expected)
    assert made.grid == GRID
    assert expected.shape == (3, PLAYERS, 24)


def test_the_head_of_the_classifier_is_no_part_of_it() -> None:
    assert not [name for name in explainer(ShapleyNetwork, 3).state_dict() if "head" in name]


@pytest.mark.parametrize("outputs", [3, 1])
def test_phi_plus_and_phi_minus_are_the_two_halves_of_the_scores(outputs: int) -> None:
    made = explainer(SalvageNetwork, 2 * outputs)
    scores, parts = made(images()).float(), made.parts(images())
    for number, part in enumerate(parts):
        half = scores[..., outputs * number : outputs * (number + 1)]
        expected = torch.stack([-half[..., 0] / 2, half[..., 0] / 2], dim=-1) if outputs == 1 else half
        assert torch.equal(part, expected)
        assert part.dtype == torch.float32
    assert not torch.allclose(parts.present, parts.absent)


@pytest.mark.parametrize("outputs", [3, 1])
def test_as_a_classifier_it_is_equation_6_and_u_of_the_full_coalition(outputs: int) -> None:
    made = explainer(SalvageNetwork, 2 * outputs)
    parts, logits = made.parts(images()), made.classify(images())
    summed = sum(parts.present[:, patch].double() for patch in range(PLAYERS))
    torch.testing.assert_close(logits.double(), summed, rtol=1e-5, atol=1e-5)
    everything = torch.ones(3, 1, PLAYERS, dtype=torch.bool)
    expected = shapley_distribution(*parts, everything)[:, 0]
    torch.testing.assert_close(logits.log_softmax(1), expected, rtol=1e-4, atol=1e-4)  # both in float32
    assert logits.std(0).min() > 1e-3


def test_attributions_are_phi_plus_less_phi_minus_of_the_class_asked_for() -> None:
    made, targets = explainer(SalvageNetwork, 6), torch.tensor([2, 0, 1])
    parts, maps = made.parts(images()), Salvage(made).attribute(images(), targets)
    assert maps.shape == (3, *GRID)
    for image, patch in ((image, patch) for image in range(3) for patch in range(PLAYERS)):
        phi = parts.present[image, patch, targets[image]] - parts.absent[image, patch, targets[image]]
        assert maps[image, patch // 8, patch % 8] == phi


@pytest.mark.parametrize("outputs", [3, 1])
def test_values_of_vit_shapley_are_its_scores(outputs: int) -> None:
    made = explainer(ShapleyNetwork, outputs)
    values = made.values(images())
    assert values.shape == (3, PLAYERS, max(outputs, 2))
    if outputs == 1:
        assert torch.equal(values[..., 0], -values[..., 1])
    else:
        assert torch.equal(values, made(images()).float())


def test_mixed_precision_ends_before_anything_is_added_up() -> None:
    made = explainer(SalvageNetwork, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        parts, logits = made.parts(images().float()), made.classify(images().float())
        assert made(images().float()).dtype == torch.float32
    assert {part.dtype for part in parts} == {torch.float32}
    torch.testing.assert_close(logits, parts.present.sum(1), rtol=1e-6, atol=1e-6)


def test_a_column_belongs_to_its_images_class() -> None:
    values, targets = torch.arange(24.0).reshape(2, 4, 3), torch.tensor([2, 1])
    assert column(values, targets).tolist() == [[2, 5, 8, 11], [13, 16, 19, 22]]


def test_images_of_another_size_are_refused_in_one_line() -> None:
    told = refusal(explainer(SalvageNetwork, 6), torch.rand(1, 3, 16, 32, dtype=torch.float64))
    assert told.startswith("images of 16 x 32 px do not fit a network of 8 x 32")


def decoder(*, trained: bool, depth: int = 1) -> MaskTransformer:
    """In float64; where trained, nothing in it is zero or what it began as."""
    with seeded(0):
        made = MaskTransformer(width=8, scores=3, depth=depth, heads=2).double()
        for value in made.parameters() if trained else ():
            value.data += 0.3 * torch.randn(value.shape)
    return made


def tokens(seed: int = 0) -> Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_an_untrained_decoder_attributes_nothing_and_learns_from_its_first_step() -> None:
    made = decoder(trained=False)
    scores = made(tokens())
    assert torch.equal(scores, torch.zeros(2, 5, 3, dtype=torch.float64))
    scores[..., 0].sum().backward()  # type: ignore[no-untyped-call]
    gradient = there(made.patch_projection.weight.grad)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("depth", [1, 2])
def test_a_score_is_the_scaled_product_of_patch_and_class_after_both_have_met(depth: int) -> None:
    made = decoder(trained=True, depth=depth)
    together = torch.cat([made.project(tokens()), made.class_tokens.expand(2, -1, -1)], dim=1)
    for block in made.blocks:
        together = block(together)
    together = torch.nn.functional.layer_norm(together, (8,), made.norm.weight, made.norm.bias)
    scores = made(tokens())
    assert len(made.blocks) == depth
    for image, patch, score in ((image, m, k) for image in range(2) for m in range(5) for k in range(3)):
        left = made.patch_projection.weight @ together[image, patch]
        right = made.class_projection.weight @ together[image, 5 + score]
        torch.testing.assert_close(scores[image, patch, score], left @ right / 8**0.5)
    assert scores.std() > 0.1


def test_the_linear_decoder_starts_at_zero_and_is_a_map_of_each_patch_after_its_blocks() -> None:
    made = LinearDecoder(width=8, scores=3, depth=1, heads=2).double()
    assert torch.equal(made(tokens()), torch.zeros(2, 5, 3, dtype=torch.float64))
    made.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    made.head.bias.data.normal_(generator=torch.Generator().manual_seed(1))
    normed, scores = made.norm(made.blocks[0](tokens())), made(tokens())
    for image, patch in ((image, m) for image in range(2) for m in range(5)):
        torch.testing.assert_close(scores[image, patch], made.head.weight @ normed[image, patch] + made.head.bias)


def test_decoders_are_built_by_name() -> None:
    made = [build_decoder(kind, 8, 3, 2, 4) for kind in sorted(get_args(Decoder))]
    assert [type(decoder) for decoder in made] == [LinearDecoder, MaskTransformer]
    for decoder in made:
        assert (len(decoder.blocks), decoder.blocks[0].attn.num_heads) == (2, 4)
        assert decoder(tokens().float()).shape == (2, 5, 3)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    told = refusal(build_decoder, "linear", 8, 3, 1, 3)
    assert told == "heads=3 of a decoder must divide the 8 channels of the backbone"


@pytest.mark.parametrize("kind", get_args(Decoder))
def test_mixed_precision_tells_patches_apart_that_have_much_in_common(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(1, 256, 8, generator=generator)
    made = build_decoder(kind, 8, 2, 1, 2).eval().requires_grad_(False)
    if isinstance(made, LinearDecoder):
        made.head.weight.normal_(std=0.02, generator=generator)
        made.head.bias.fill_(3.0)
    else:
        # A bias of the last norm, which both factors of the product have, is what their products have in common.
        made.norm.bias.fill_(3.0)
        made.patch_projection.weight.copy_(torch.eye(8) * 0.2)
        made.class_projection.weight.copy_(torch.eye(8) * 0.2)
    exact = made(given)
    with torch.autocast("cpu", torch.bfloat16):
        scores = made(given)
    assert scores.dtype == torch.float32
    spread = (exact - exact.mean(1, keepdim=True)).abs().mean()
    assert exact.abs().mean() > 10 * spread, "there is no common offset to lose digits to"
    assert len(scores[0, :, 0].unique()) > 250
    assert len(exact.bfloat16()[0, :, 0].unique()) < 60
    assert (scores - exact).sub((scores - exact).mean(1, keepdim=True)).abs().mean() < 0.05 * spread
