"""CLIPs by open_clip's name: a tiny one, in the files that open_clip writes, against its own towers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.factory import _MODEL_CONFIG_PATHS, _rescan_model_configs
from safetensors.torch import save_file

import xai
from tests.toolbox import cases, refusal

NAME, CLASSES, TEMPLATES = "tiny-quick", ["cat", "potter's wheel", "dog"], ["a photo of a {}.", "a drawing of a {}."]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A CLIP of an architecture that open_clip is told of, as anybody can tell it."""
    folder = tmp_path_factory.mktemp("configs")
    shape = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / f"{NAME}.json").write_text(json.dumps(shape))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = open_clip.create_model(NAME).eval()
        for value in made.parameters():
            value.data += 0.1 * torch.randn_like(value)
    yield made
    _MODEL_CONFIG_PATHS.remove(folder)
    _rescan_model_configs()


@torch.no_grad()
def expected(clip: Any, pixels: torch.Tensor) -> torch.Tensor:
    """What open_clip's own towers say, by its recipe for classifying without training."""
    tokens = open_clip.get_tokenizer(NAME)
    by_class = []
    for name in CLASSES:
        each = clip.encode_text(tokens([template.format(name) for template in TEMPLATES]), normalize=True).mean(0)
        by_class.append(each / each.norm())
    seen = (pixels - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
    return (clip.logit_scale.exp() * clip.encode_image(seen, normalize=True) @ torch.stack(by_class).T).softmax(1)


@pytest.mark.parametrize("form", ["safetensors", "training"])
def test_a_clip_is_loaded_by_open_clips_name(clip: Any, tmp_path: Path, form: str) -> None:
    tensors = {name: value.contiguous() for name, value in clip.state_dict().items()}
    if form == "safetensors":  # open_clip_model.safetensors of the hub
        path = tmp_path / "open_clip_model.safetensors"
        save_file(tensors, path)
    else:  # epoch_3.pt of open_clip's own training on several GPUs
        path = tmp_path / "epoch_3.pt"
        wrapped = {f"module.{name}": value for name, value in tensors.items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": wrapped, "optimizer": {}}, path)
    model = xai.load(path, architecture=NAME, classes=CLASSES, mean=MEAN, std=STD, templates=TEMPLATES)
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.predict(pixels), expected(clip, pixels), rtol=1e-4, atol=1e-5)
    assert (model.classes, model.image_size, model.network().grid) == (tuple(CLASSES), 32, (4, 4))
    assert xai.explain(model, pixels, "kernel_shap", coalitions=32, evaluation_coalitions=32).shape == (3, 4, 4)


@pytest.mark.parametrize(("settings", "said"), cases(__file__, "refused_clips.txt"))
def test_what_is_no_clip_of_that_name_is_refused_in_a_line(
    clip: Any, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    assert said in refusal(xai.load, tmp_path / "clip.pt", **{"architecture": NAME, "classes": CLASSES, **settings})
