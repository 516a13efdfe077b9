from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.toolbox import refusal, there
from xai.models.dpt import Conditioning, DecoderParams, DptDecoder, Norm
from xai.models.families import seeded

PUBLISHED: dict[str, Any] = {
    "resampling": "learned",
    "align_corners": True,
    "rectify": True,
    "unit_bias": False,
    "idle_unit": False,
    "kaiming": True,
}
PAPER = DecoderParams(256, 128, 32, 64, (4, 2, 1, 0.5), **PUBLISHED)
TINY = DecoderParams(8, 4, 2, 4, (2, 1, 0.5))
VIT = [(6, (6, 6))] * 3
PYRAMID = [(4, (11, 9)), (6, (6, 5)), (10, (3, 3))]
"""Width and grid of each level."""
CLASSES = 3


def decoder(params: DecoderParams = TINY, shape: Any = VIT, seed: int = 0) -> DptDecoder:
    """In evaluation mode, with statistics as after a training, and a last layer that is as large as the others."""
    with seeded(seed):
        made = DptDecoder(params, [width for width, _ in shape], CLASSES)
        for part in made.modules():
            if isinstance(part, nn.BatchNorm2d | nn.GroupNorm):
                part.weight.data += 0.3 * torch.randn(part.weight.shape)
                part.bias.data += 0.3 * torch.randn(part.bias.shape)
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        made.refinement[-1].weight.data *= 30
        made(levels(shape), torch.tensor([0, 1]), picture(), evidence() if params.gradient else None)
    return made.eval().requires_grad_(False)


def levels(shape: Any = VIT, batch: int = 2, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, width, *grid, generator=generator) for width, grid in shape]


def picture(height: int = 12, width: int = 12, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


def evidence(height: int = 12, width: int = 12) -> Tensor:
    return torch.randn(2, 8, height, width, generator=torch.Generator().manual_seed(3))


def convolutions(part: nn.Module) -> list[tuple[int, int, int, int]]:
    """Channels in and out, side and groups of each convolution, in order."""
    return [
        (each.in_channels, each.out_channels, each.kernel_size[0], each.groups)
        for each in part.modules()
        if isinstance(each, nn.Conv2d)
    ]


def kinds(part: nn.Module) -> list[str]:
    return [type(each).__name__ for each in part.modules() if not list(each.children())]


@pytest.fixture(scope="module")
def paper() -> DptDecoder:
    """The decoder at the size of the paper: shapes without numbers."""
    with torch.device("meta"):
        return DptDecoder(PAPER, [1024] * 4, 1000)


def test_the_class_enters_every_level_of_the_paper_s_decoder(paper: DptDecoder) -> None:
    assert paper.embedding.weight.shape == (1000, 1024)
    assert [kinds(part) for part in paper.readouts] == [["Linear"]] * 4
    assert [part.project.weight.shape for part in paper.readouts] == [(1024, 2048)] * 4


def test_the_layers_of_the_paper_s_decoder(paper: DptDecoder) -> None:
    for project, narrow in zip(paper.projections, paper.narrow, strict=True):
        assert kinds(project) == ["BatchNorm2d", "Conv2d", "ReLU"]
        assert (convolutions(project), convolutions(narrow)) == ([(1024, 256, 1, 1)], [(256, 128, 3, 1)])
        assert kinds(narrow) == ["Conv2d", "ReLU"]
    assert len(paper.fusions) == 4
    for fusion, units in zip(paper.fusions, (2, 2, 2, 1), strict=True):
        assert kinds(fusion) == ["ReLU", "Conv2d"] * 2 * units + ["Conv2d"]
        assert convolutions(fusion) == [(128, 128, 3, 1)] * 2 * units + [(128, 128, 1, 1)]
        assert [name for name, _ in fusion.named_parameters() if "body" in name and "bias" in name] == []
    assert convolutions(paper.last) == [(128, 128, 3, 1)]
    assert convolutions(paper.head) == [(128, 64, 3, 1)]
    assert kinds(paper.output) == ["Conv2d", "ReLU", "Conv2d", "ReLU"]
    assert convolutions(paper.output) == [(64, 32, 3, 1), (32, 128, 1, 1)]


def test_the_refinement_block_of_the_paper_s_decoder(paper: DptDecoder) -> None:
    block = ["Conv2d", "BatchNorm2d", "GELU"]
    assert kinds(paper.refinement) == ["Dropout2d", "BatchNorm2d", *block, *block, *block, "Conv2d"]
    assert paper.refinement[0].p == 0.1
    assert convolutions(paper.refinement) == [(128, 128, 3, 128), (128, 64, 1, 1), (64, 64, 3, 1), (64, 1, 3, 1)]


def test_a_map_of_the_paper_s_decoder_has_the_size_of_the_image(paper: DptDecoder) -> None:
    features = [torch.empty(2, 1024, 14, 14, device="meta")] * 4
    images = torch.empty(2, 3, 224, 224, device="meta")
    assert paper(features, torch.empty(2, dtype=torch.long, device="meta"), images).shape == (2, 224, 224)
    assert paper.stem is None


def test_the_parameters_of_the_paper_s_decoder_are_as_many_as_published(paper: DptDecoder) -> None:
    def count(part: nn.Module) -> int:
        return sum(value.numel() for value in part.parameters())

    assert count(paper) == pytest.approx(16.0e6, rel=0.005)
    assert count(paper.resize) == pytest.approx(1.9e6, rel=0.002)


def test_learned_steps_need_factors_that_a_convolution_has() -> None:
    assert "whole factors and their inverses" in refusal(replace, TINY, resampling="learned", resize=(1.5, 1, 1))


@pytest.mark.parametrize("kaiming", [False, True])
def test_the_last_convolution_starts_small_and_others_keep_the_size_of_activations(kaiming: bool) -> None:
    with seeded(0):
        made = DptDecoder(replace(TINY, fusion=64, refinement=512, kaiming=kaiming), [6, 6, 6], CLASSES)
    last = made.refinement[-1]
    assert last.weight.numel() == 9 * 512
    assert float(last.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert float(last.weight.detach().mean()) == pytest.approx(0, abs=0.001)
    assert not last.bias.any()
    if kaiming:
        assert float(made.last.weight.detach().std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
        assert not made.last.bias.any()


def normalise(part: Any, values: Tensor) -> Tensor:
    if isinstance(part, nn.GroupNorm):
        mean, variance = values.mean((1, 2, 3), keepdim=True), values.var((1, 2, 3), correction=0, keepdim=True)
    else:
        mean, variance = (each.reshape(1, -1, 1, 1) for each in (part.running_mean, part.running_var))
    weight, bias = part.weight.reshape(1, -1, 1, 1), part.bias.reshape(1, -1, 1, 1)
    return (values - mean) / (variance + part.eps).sqrt() * weight + bias


def convolve(part: Any, values: Tensor) -> Tensor:
    return F.conv2d(values, part.weight, part.bias, padding=part.kernel_size[0] // 2, groups=part.groups)


def resize(params: DecoderParams, values: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=params.align_corners)


def level(part: Any, params: DecoderParams, values: Tensor, number: int) -> Tensor:
    """One level at its own size; learned steps pixel by pixel."""
    factor, (height, width) = params.resize[number], values.shape[2:]
    if params.resampling == "bilinear" or factor == 1:
        return resize(params, values, (int(height * factor), int(width * factor)))
    weight, bias = part.resize[number].weight, part.resize[number].bias.reshape(1, -1, 1, 1)
    if factor > 1:
        blocks = torch.einsum("bchw,cdij->bdhiwj", values, weight)
        return blocks.flatten(4).flatten(2, 3) + bias
    padded, stride = F.pad(values, (1, 1, 1, 1)), round(1 / factor)
    met = padded.unfold(2, 3, stride).unfold(3, 3, stride)
    return torch.einsum("bchwij,dcij->bdhw", met, weight) + bias


def residual(part: Any, values: Tensor) -> Tensor:
    return values + convolve(part.body[3], F.relu(convolve(part.body[1], F.relu(values))))


def literal(
    part: DptDecoder, params: DecoderParams, features: list[Tensor], targets: Tensor, images: Tensor, slopes: Tensor
) -> Tensor:
    """The decoder line by line, patch by patch where a class is read."""
    maps = []
    for number, features_of in enumerate(features):
        readout, project, (narrow, _) = part.readouts[number], part.projections[number], part.narrow[number]
        told = torch.empty_like(features_of)
        for image, target in enumerate(targets.tolist()):
            embedding = part.embedding.weight[target]
            for row in range(features_of.shape[2]):
                for column in range(features_of.shape[3]):
                    patch = features_of[image, :, row, column]
                    pair = [patch, embedding]
                    if params.conditioning == "product":
                        pair.append(patch * (readout.match.weight @ embedding + readout.match.bias))
                    linear = readout.project.weight @ torch.cat(pair) + readout.project.bias
                    told[image, :, row, column] = F.gelu(linear)
        wide = F.relu(convolve(project[1], normalise(project[0], told)))
        maps.append(F.relu(convolve(narrow, level(part, params, wide, number))))
    fused = None
    for number in reversed(range(len(maps))):
        block, here = part.fusions[number], maps[number]
        if fused is not None:
            here = resize(params, fused, here.shape[2:]) + residual(block.before, here)
        here = residual(block.after, here)
        fused = convolve(block.project, resize(params, here, (2 * here.shape[2], 2 * here.shape[3])))
        fused = F.relu(fused) if params.rectify else fused
    half = convolve(part.head[0], convolve(part.last, fused))
    half = resize(params, resize(params, half, (2 * half.shape[2], 2 * half.shape[3])), tuple(images.shape[2:]))
    values = convolve(part.output[2], F.relu(convolve(part.output[0], half)))
    values = F.relu(values) if params.rectify else values
    if part.stem is not None:
        first, _, second = part.stem.look
        pixels = images * 2 - 1
        seen = torch.cat([pixels, slopes], dim=1) if params.gradient else pixels
        looked = convolve(second, F.gelu(convolve(first, seen)))
        channels = values.shape[1]
        values = values + values * looked[:, :channels] + looked[:, channels:]
    block = part.refinement
    values = normalise(block[1], values)
    for first in (2, 5, 8):
        values = F.gelu(normalise(block[first + 1], convolve(block[first], values)))
    return convolve(block[11], values)[:, 0] * params.scale


@pytest.mark.parametrize("conditioning", get_args(Conditioning))
@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        (VIT, {}),
        (VIT, {**PUBLISHED, "resize": (2, 1, 0.5)}),
        (PYRAMID, {"resize": (1, 1, 1), "pixels": 2}),
        (PYRAMID, {"resize": (1, 1, 1), "pixels": 2, "gradient": True}),
    ],
    ids=["vit", "published", "cnn", "cnn_and_gradient"],
)
def test_it_is_what_the_paper_says_line_by_line(
    conditioning: str, norm: str, shape: Any, changes: dict[str, Any]
) -> None:
    params = replace(TINY, conditioning=conditioning, norm=norm, scale=1.5, **changes)
    made, targets, slopes = decoder(params, shape), torch.tensor([2, 0]), evidence(42, 35)
    found = made(levels(shape), targets, picture(42, 35), slopes if params.gradient else None)
    wide = [level.double() for level in levels(shape)]
    expected = literal(made.double(), params, wide, targets, picture(42, 35).double(), slopes.double())
    assert expected.std() > 0.05
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.std()))


@pytest.mark.parametrize("conditioning", get_args(Conditioning))
def test_another_class_has_another_map(conditioning: str) -> None:
    made = decoder(replace(TINY, conditioning=conditioning))
    first, second, again = (made(levels(), torch.full((2,), target), picture()) for target in (0, 1, 0))
    assert torch.equal(first, again)
    assert (first - second).abs().mean() > 1e-3 * first.std()


@pytest.mark.parametrize("norm", get_args(Norm))
def test_only_batch_norm_in_training_mixes_the_images_of_a_batch(norm: str) -> None:
    made, targets = decoder(replace(TINY, norm=norm, dropout=0.0)), torch.tensor([0, 1])
    for training in (False, True):
        alone = made.train(training)([level[:1] for level in levels()], targets[:1], picture(batch=1))
        among = made(levels(), targets, picture())[:1]
        assert torch.allclose(alone, among, rtol=1e-4, atol=1e-5) == (norm == "group" or not training)


def test_dropout_takes_whole_channels_and_only_in_training() -> None:
    made, seen = decoder(replace(TINY, head=16, dropout=0.5)), []
    made.refinement[0].register_forward_hook(lambda *call: seen.append(call[-1]))
    for training in (False, True):
        with seeded(0):
            made.train(training)(levels(), torch.tensor([0, 1]), picture())
    gone = [(values == 0).flatten(2).float().mean(2) for values in seen]
    assert not gone[0].any()
    assert set(gone[1].unique().tolist()) == {0.0, 1.0}
    assert 0.3 < float(gone[1].mean()) < 0.7


def test_maps_are_single_precision_also_where_the_network_is_not() -> None:
    made, targets = decoder(), torch.tensor([0, 1])
    exact = made(levels(), targets, picture())
    with torch.autocast("cpu", torch.bfloat16):
        assert made.last(levels([(4, (3, 3))])[0]).dtype == torch.bfloat16
        within = made(levels(), targets, picture())
    assert exact.dtype == torch.float32
    assert torch.equal(within, exact)


@pytest.mark.parametrize(("look", "sums"), [(True, (6,)), ("path", (3, 7, 11))])
def test_a_skip_adds_the_sums_over_the_channels_in_equal_parts_to_begin_with(look: Any, sums: tuple[int, ...]) -> None:
    seen = torch.randn(2, 12 if look == "path" else 8, 12, 12, generator=torch.Generator().manual_seed(4))
    plain, skipping = (
        DptDecoder(replace(TINY, pixels=2, gradient=look, skip=skip), [6] * 3, CLASSES) for skip in (False, True)
    )
    gains = there(skipping.gains)
    skipping.load_state_dict({**plain.state_dict(), "gains": gains})
    given = (levels(), torch.tensor([0, 1]), picture(), seen)
    drawn, corrected = (made.eval()(*given) for made in (plain, skipping))
    torch.testing.assert_close(corrected, drawn + seen[:, sums].mean(1))
    corrected.sum().backward()
    torch.testing.assert_close(gains.grad, seen.sum((0, 2, 3)))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_a_correction_lies_on_the_line_from_what_it_corrects_to_all_of_it(share: float) -> None:
    made, seen = decoder(replace(TINY, pixels=2, gradient=True, skip=True, scale=3.0)), evidence()
    made.gains += torch.randn(8, generator=torch.Generator().manual_seed(5))
    given = (levels(), torch.tensor([0, 1]), picture(), seen)
    whole = made(*given)
    torch.testing.assert_close(made.uncorrected(seen), seen[:, 6])
    made.keep(share)
    torch.testing.assert_close(made(*given), (1 - share) * seen[:, 6] + share * whole)


def test_where_nothing_is_corrected_no_share_of_it_is_kept() -> None:
    with pytest.raises(ValueError, match="has nothing that it corrects"):
        decoder().keep(0.5)


def test_a_skip_without_what_it_adds_is_refused() -> None:
    assert "skip=true adds what gradient shows: set gradient=path" in refusal(replace, TINY, pixels=2, skip=True)


def test_every_level_needs_its_factor() -> None:
    told = refusal(DptDecoder, TINY, [6, 6], CLASSES)
    assert told == "decoder.resize has 3 factors for 2 feature levels: give one a level"
