import functools
import string
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.pos_embed import get_2d_sincos_pos_embed
from safetensors.torch import save_file

from tests.models.tiny_clip import PARAMS, TOWERS
from tests.toolbox import refusal
from xai.core.composing import compose_choice
from xai.core.errors import UserError
from xai.data.glyphs import GLYPHS
from xai.data.prompts import GLYPH_CAPTIONS as CAPTIONS
from xai.models.factory import (
    ClipParams,
    WordTokenizer,
    base_weights_file,
    build_clip,
    build_explainer,
    build_tokenizer,
    load_base,
    read_base_weights,
)

REAL = ClipParams("clip_vit_b32", 224, 32, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), architecture="ViT-B-32")


OPENAI = replace(
    REAL, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711), pretrained="openai"
)


@pytest.fixture
def _without_weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models of the real size have shapes only."""
    monkeypatch.setattr(open_clip, "create_model", functools.partial(open_clip.create_model, device="meta"))
    with torch.device("meta"):
        yield


@pytest.mark.usefixtures("_without_weights")
@pytest.mark.parametrize(
    ("architecture", "patch", "grid", "width"), [("ViT-B-32", 32, 7, 512), ("ViT-L-14", 14, 16, 768)]
)
def test_the_papers_models_have_49_and_256_patches(architecture: str, patch: int, grid: int, width: int) -> None:
    params = replace(REAL, architecture=architecture, patch_size=patch)
    clip = build_clip(params)
    clip.logit_scale = torch.nn.Parameter(torch.tensor(2.0, device="cpu"))
    model = build_explainer(REAL, clip, torch.zeros(width, 3))
    assert model.grid == (grid, grid)
    assert params.grid == grid
    assert clip.visual.output_dim == width
    assert clip.visual.positional_embedding.shape[0] == grid * grid + 1
    assert not params.embedded


def test_small_towers_have_the_shape_asked_for() -> None:
    clip = build_clip(PARAMS)
    assert clip.visual.grid_size == (4, 4)
    assert len(clip.visual.transformer.resblocks) == TOWERS.layers
    assert clip.visual.transformer.resblocks[0].attn.num_heads == TOWERS.width // TOWERS.head_width
    assert clip.text_projection.shape == (TOWERS.text_width, TOWERS.embed_dim)
    positions = torch.from_numpy(get_2d_sincos_pos_embed(16, 4, cls_token=True)).float()
    torch.testing.assert_close(clip.visual.positional_embedding.detach(), TOWERS.position_scale * positions)
    tokens = build_tokenizer(PARAMS)(["a photo of the number 7."])
    assert clip.encode_text(tokens).shape == (1, TOWERS.embed_dim)
    assert clip.training


def test_weights_depend_on_the_seed_alone_and_leave_the_global_generator() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = build_clip(PARAMS, 3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = build_clip(PARAMS, 3).state_dict(), build_clip(PARAMS, 4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


@pytest.mark.usefixtures("_without_weights")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "RN50"}, "RN50 is no plain CLIP with a ViT tower"),
        ({"architecture": "coca_ViT-B-32"}, "coca_ViT-B-32 is no plain CLIP"),
        ({"patch_size": 16}, "takes 224 px in patches of 32, not image_size=224 and patch_size=16"),
    ],
)
def test_architectures_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    assert message in refusal(build_clip, replace(REAL, **settings))  # type: ignore[arg-type]


@pytest.mark.usefixtures("_without_weights")
@pytest.mark.parametrize(
    ("pretrained", "asked", "architecture", "quick"),
    [
        ("openai", None, "ViT-B-32", True),
        ("openai", True, "ViT-B-32", True),
        ("datacomp_xl_s13b_b90k", None, "ViT-B-32", False),
        (None, None, "ViT-B-32", False),
        (None, True, "ViT-B-32", True),
        (None, None, "ViT-B-32-quickgelu", True),
    ],
)
def test_towers_activate_as_their_weights_were_trained(
    pretrained: str | None, asked: bool | None, architecture: str, quick: bool
) -> None:
    params = replace(OPENAI, pretrained=pretrained, quick_gelu=asked, architecture=architecture)
    assert params.activates_quickly is quick
    clip = build_clip(params)
    for tower in (clip.visual.transformer, clip.transformer):
        assert (type(tower.resblocks[0].mlp.gelu).__name__ == "QuickGELU") is quick


@pytest.mark.parametrize("change", [{"mean": (0.5,) * 3}, {"std": (0.5,) * 3}, {"std": (0.5,) * 3, "weights": "w.pt"}])
def test_another_normalisation_than_the_published_one_is_refused(change: dict[str, Any]) -> None:
    name = next(iter(change))
    with pytest.raises(UserError, match=rf"model\.{name}=.* not what model.pretrained=openai .*: set model\.{name}="):
        base_weights_file(replace(OPENAI, **change))


def test_an_activation_that_contradicts_the_published_one_is_refused() -> None:
    assert "quick_gelu=false contradicts pretrained=openai" in refusal(replace, OPENAI, quick_gelu=False)


def test_base_weights_make_the_round_trip(tmp_path: Path) -> None:
    state = {name: value.clone() + 1 for name, value in build_clip(PARAMS).state_dict().items()}
    save_file(state, tmp_path / "open_clip.safetensors")
    clip = load_base(PARAMS, read_base_weights(PARAMS, tmp_path / "open_clip.safetensors"))
    assert all(torch.equal(value, state[name]) for name, value in clip.state_dict().items())
    assert not clip.training
    assert not any(value.requires_grad for value in clip.parameters())


def test_base_weights_of_another_shape_or_with_nan_are_refused(tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in build_clip(PARAMS).state_dict().items()}
    file = tmp_path / "weights.safetensors"
    save_file({**state, "visual.proj": torch.zeros(3, 3)}, file)
    assert "visual.proj" in refusal(read_base_weights, PARAMS, file)
    save_file({name: value for name, value in state.items() if name != "logit_scale"}, file)
    with pytest.raises(UserError, match=r"1 of its .* missing .*logit_scale"):
        read_base_weights(PARAMS, file)
    state["visual.proj"][0, 0] = torch.nan
    save_file(state, file)
    assert "visual.proj" in refusal(read_base_weights, PARAMS, file)


def test_where_base_weights_come_from() -> None:
    assert base_weights_file(replace(OPENAI, weights="a.pt")) == Path("a.pt")
    assert base_weights_file(replace(REAL, weights="a.pt")) == Path("a.pt")
    assert "has no weights: set model.weights=FILE or model.pretrained=TAG" in refusal(base_weights_file, REAL)
    with pytest.raises(UserError, match=r"pretrained=nonsense is unknown for ViT-B-32: known are .*datacomp_xl"):
        base_weights_file(replace(REAL, pretrained="nonsense"))


def test_without_a_network_the_hub_ends_in_one_line_of_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(open_clip, "download_pretrained", unreachable)
    told = refusal(base_weights_file, OPENAI)
    assert "ConnectionError" in told
    assert "model.weights=" in told


def test_weights_and_data_lie_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(
        open_clip, "download_pretrained", lambda found, cache_dir=None: asked.append(cache_dir) or "weights"
    )
    for folder in ("/weights", None):
        monkeypatch.setenv("XAI_WEIGHTS", folder) if folder else monkeypatch.delenv("XAI_WEIGHTS")
        assert base_weights_file(OPENAI) == Path("weights")
    assert asked == ["/weights", None]
    monkeypatch.setenv("XAI_DATA", "/sets")
    assert compose_choice("data", "stl10").root == "/sets/stl10"


PAD, START = 0, 1


def words(text: str) -> list[int]:
    """The numbers between start and end."""
    row = WordTokenizer()(text)[0].tolist()
    end = row.index(max(row))
    assert row[0] == START
    assert row[end] == WordTokenizer().vocab_size - 1
    assert set(row[end + 1 :]) <= {PAD}
    return row[1:end]


def test_the_end_token_has_the_highest_number_and_occurs_once_in_every_caption() -> None:
    tokenizer = WordTokenizer()
    texts = [caption.format(glyph) for caption in CAPTIONS for glyph in GLYPHS]
    rows = tokenizer([*texts, "", "word " * 50, "x" * 500])
    assert rows.shape == (len(texts) + 3, 16)
    assert (rows == tokenizer.vocab_size - 1).sum(1).eq(1).all()
    assert rows.max() == tokenizer.vocab_size - 1
    assert rows.min() == PAD
    assert rows.dtype == torch.long


def test_known_words_are_one_token_and_unknown_ones_are_spelled() -> None:
    assert len(words("a photo of the number")) == 5
    assert words("zebra") == [number for letter in "zebra" for number in words(letter)]
    assert words("a Photo") == words("A photo")
    assert words("photo.") == words("photo") + words(".")
    assert words("  photo \n of ") == words("photo of")
    assert words("42") == words("4") + words("2")


def test_every_character_in_use_has_a_number_of_its_own() -> None:
    characters = string.ascii_lowercase + string.digits + string.punctuation
    numbers = [words(character) for character in characters]
    assert all(len(number) == 1 for number in numbers)
    assert len({number[0] for number in numbers}) == len(characters)


def test_captions_of_different_glyphs_differ() -> None:
    for caption in CAPTIONS:
        rows = {tuple(words(caption.format(glyph))) for glyph in GLYPHS}
        assert len(rows) == len(GLYPHS)


def test_long_captions_lose_their_tail_and_foreign_signs_vanish() -> None:
    assert words("photo " * 30) == words("photo") * 14
    assert words("日本") == []
    assert words("") == []
    assert WordTokenizer(context_length=4)("a b c d").shape == (1, 4)
    assert WordTokenizer()([]).shape == (0, 16)
