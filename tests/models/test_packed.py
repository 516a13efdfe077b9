from collections.abc import Callable
from typing import Any

import pytest
import torch
from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tests.toolbox import refusal
from xai.models import packed
from xai.models.families import seeded
from xai.models.maskable import Rows, sort_rows

EXACT = {"rtol": 1e-10, "atol": 1e-10}
WIDTH = 12

Build = Callable[[], nn.Module]
BLOCKS: dict[str, Build] = {
    "open_clip": lambda: ResidualAttentionBlock(WIDTH, 2),
    "open_clip_layer_scale": lambda: ResidualAttentionBlock(WIDTH, 2, ls_init_value=0.5),
    "timm": lambda: Block(WIDTH, 2, qkv_bias=True),
    "timm_layer_scale": lambda: Block(WIDTH, 2, init_values=0.5),
    "timm_norms": lambda: Block(WIDTH, 2, qk_norm=True, scale_attn_norm=True, scale_mlp_norm=True),
}


@pytest.fixture(params=BLOCKS)
def blocks(request: pytest.FixtureRequest) -> nn.ModuleList:
    return transformer(BLOCKS[request.param])


@seeded(0)
def transformer(build: Build, depth: int = 3) -> nn.ModuleList:
    made = nn.ModuleList(build() for _ in range(depth))
    for value in made.parameters():
        value.data = value.data + 0.5 * torch.randn(value.shape)
    return made.double().eval().requires_grad_(False)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(blocks: nn.ModuleList, sequence: Tensor) -> Tensor:
    """The library's own forward of one sequence [L, D]."""
    tokens = sequence[None]
    for block in blocks:
        tokens = block(tokens)
    return tokens[0]


def end_to_end(sequences: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Sequences that follow one another, and their groups."""
    lengths = [len(sequence) for sequence in sequences]
    groups = [(lengths.count(length), length) for length in sorted(set(lengths))]
    assert lengths == sorted(lengths)
    return torch.cat(sequences), groups


@pytest.mark.parametrize("lengths", [[5], [3, 3, 3], [1, 4, 4, 7], [2, 2, 3, 3, 3, 9, 9], [6, 6, 6, 6, 8]], ids=str)
@pytest.mark.parametrize("read", [None, 1, 2])
def test_sequences_end_to_end_are_as_if_each_were_alone(
    blocks: nn.ModuleList, lengths: list[int], read: int | None
) -> None:
    sequences = [draw(length, WIDTH, seed=place) for place, length in enumerate(lengths)]
    tokens, groups = end_to_end(sequences)
    parts = packed.layers(blocks)
    found = packed.run(parts, tokens, parts[0].attention_input(tokens), groups, read)
    torch.testing.assert_close(found, torch.cat([dense(blocks, each)[:read] for each in sequences]), **EXACT)


def test_a_single_layer_reads_what_is_asked_for() -> None:
    for build in BLOCKS.values():
        blocks = transformer(build, depth=1)
        sequences = [draw(length, WIDTH, seed=length) for length in (2, 4, 5)]
        tokens, groups = end_to_end(sequences)
        parts = packed.layers(blocks)
        found = packed.run(parts, tokens, parts[0].attention_input(tokens), groups, read=1)
        torch.testing.assert_close(found, torch.stack([dense(blocks, each)[0] for each in sequences]), **EXACT)


def test_sequences_of_no_tokens_are_nobodys_neighbours(blocks: nn.ModuleList) -> None:
    sequences = [draw(length, WIDTH, seed=length) for length in (2, 4)]
    tokens, parts = torch.cat(sequences), packed.layers(blocks)
    found = packed.run(parts, tokens, parts[0].attention_input(tokens), [(3, 0), (1, 2), (1, 4)])
    torch.testing.assert_close(found, torch.cat([dense(blocks, each) for each in sequences]), **EXACT)
    assert packed.run(parts, tokens[:0], parts[0].attention_input(tokens[:0]), [(3, 0)]).shape == (0, WIDTH)


def test_class_tokens_are_the_first_of_each_sequence(blocks: nn.ModuleList) -> None:
    tokens = draw(4, 6, WIDTH)
    expected = torch.stack([dense(blocks, each)[0] for each in tokens])
    torch.testing.assert_close(packed.class_tokens(packed.layers(blocks), tokens), expected, **EXACT)


KEEP = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1]]).bool()
OWNER = [2, 0, 1, 1, 0, 2]


def sorted_rows() -> Rows:
    order, groups = sort_rows(KEEP)
    assert groups == [(1, 0), (2, 1), (1, 2), (1, 3), (1, 4)]
    return Rows(KEEP[order], torch.tensor(OWNER)[order], groups)


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_dropped_patches_are_absent_and_the_others_keep_their_order(blocks: nn.ModuleList, prefix: int) -> None:
    parts, versions = packed.layers(blocks), [draw(3, prefix + 4, WIDTH)]
    rows = sorted_rows()
    tokens, inputs, groups = packed.select(packed.encode(parts, versions), rows, prefix)
    expected = []
    for keep, owner in zip(rows.keep.tolist(), rows.owner.tolist(), strict=True):
        expected += [versions[0][owner, place] for place in range(prefix)]
        expected += [versions[0][owner, prefix + patch] for patch in range(4) if keep[patch]]
    assert torch.equal(tokens, torch.stack(expected))
    torch.testing.assert_close(inputs, parts[0].attention_input(tokens), **EXACT)
    assert groups == [(1, prefix), (2, prefix + 1), (1, prefix + 2), (1, prefix + 3), (1, prefix + 4)]


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("references", [1, 3])
def test_replaced_patches_have_the_tokens_of_their_reference(
    blocks: nn.ModuleList, prefix: int, references: int
) -> None:
    parts, rows = packed.layers(blocks), sorted_rows()
    versions = [draw(3, prefix + 4, WIDTH), draw(references, prefix + 4, WIDTH, seed=1)]
    tokens, inputs, groups = packed.select(packed.encode(parts, versions), rows, prefix)
    behind = versions[1].expand(3, -1, -1)
    expected = []
    for keep, owner in zip(rows.keep.tolist(), rows.owner.tolist(), strict=True):
        seen = [True] * prefix + keep
        expected += [(versions[0] if seen[place] else behind)[owner, place] for place in range(prefix + 4)]
    assert torch.equal(tokens, torch.stack(expected))
    torch.testing.assert_close(inputs, parts[0].attention_input(tokens), **EXACT)
    assert groups == [(6, prefix + 4)]


@pytest.mark.parametrize("skip", [0, 1, 3])
def test_the_mean_is_over_each_sequence_past_its_prefix(skip: int) -> None:
    sequences = [draw(length, WIDTH, seed=place) for place, length in enumerate([3, 3, 4, 7, 7, 7])]
    tokens, groups = end_to_end(sequences)
    expected = []
    for each in sequences:
        total = sum((token for token in each[skip:]), torch.zeros(WIDTH, dtype=torch.float64))
        expected.append(total / max(1, len(each) - skip))
    torch.testing.assert_close(packed.pool(tokens, groups, skip), torch.stack(expected), **EXACT)


def test_the_mean_of_nothing_is_zero() -> None:
    tokens = draw(4, WIDTH)
    assert torch.equal(packed.pool(tokens[:2], [(2, 1)], skip=1), torch.zeros(2, WIDTH, dtype=torch.float64))
    found = packed.pool(tokens, [(3, 0), (1, 4)], skip=0)
    assert torch.equal(found[:3], torch.zeros(3, WIDTH, dtype=torch.float64))
    torch.testing.assert_close(found[3], tokens.mean(0), **EXACT)


def swapped(block: Any, attention: nn.Module) -> nn.Module:
    block.attn = attention
    return block


class Attention(nn.MultiheadAttention):
    """Not the one that the block was written for."""


@pytest.mark.parametrize(
    ("block", "kind", "attention"),
    [
        (nn.TransformerEncoderLayer(WIDTH, 2), "TransformerEncoderLayer", "NoneType"),
        (CustomResidualAttentionBlock(WIDTH, 2), "CustomResidualAttentionBlock", "Attention"),
        (ResidualAttentionBlock(WIDTH, 2, is_cross_attention=True), "ResidualAttentionBlock", "MultiheadAttention"),
        (swapped(BLOCKS["open_clip"](), Attention(WIDTH, 2)), "ResidualAttentionBlock", "Attention"),
        (swapped(BLOCKS["timm"](), nn.Identity()), "Block", "Identity"),
    ],
    ids=["torch", "open_clip_custom", "open_clip_cross", "open_clip_swapped", "timm_swapped"],
)
def test_blocks_that_are_no_plain_ones_are_refused(block: nn.Module, kind: str, attention: str) -> None:
    assert refusal(packed.layers, [BLOCKS["timm"](), block]) == (
        f"transformer blocks of type {kind} with attention {attention} cannot run packed: "
        "explain the network as a whole, with removal.kind=pixels"
    )
