from typing import get_args

import pytest
import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.models.segmenter import Decoder, LinearDecoder, MaskTransformer, build_decoder


def decoder(*, trained: bool, depth: int = 1) -> MaskTransformer:
    """In float64; where trained, nothing in it is zero or what it began as."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
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
    gradient = made.patch_projection.weight.grad
    assert gradient is not None
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


def test_patches_keep_their_places_and_see_each_other() -> None:
    made, given = decoder(trained=True), tokens()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(made(given[:, order]), made(given)[:, order])
    changed = given.clone()
    changed[:, 0] += 1
    assert (made(changed) - made(given))[:, 1:].abs().min() > 0


def test_images_do_not_see_each_other() -> None:
    made, given = decoder(trained=True), tokens()
    torch.testing.assert_close(made(given)[:1], made(given[:1]))


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


@pytest.mark.parametrize(
    ("kind", "heads", "message"),
    [
        ("unet", 2, r"^decoder=unet is unknown: use .*mask_transformer.*$"),
        ("linear", 3, r"^heads=3 of a decoder must divide the width of the backbone, 8$"),
    ],
)
def test_decoders_that_cannot_be_built_are_refused(kind: str, heads: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_decoder(kind, 8, 3, 1, heads)


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
