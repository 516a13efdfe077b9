import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from xai.core.errors import UserError
from xai.models.vit_file import VitInfo, load_vit, read_vit, write_vit
from xai.models.weights import read_weights

INFO = VitInfo("salvage", "tiny", "digits", ("zero", "one"), True, decoder_depth=1, decoder_heads=2)


def network(width: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(width)
        return nn.Sequential(nn.Linear(3, width), nn.LayerNorm(width))


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_vit(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_and_loaded(tmp_path: Path) -> None:
    path, written, other = tmp_path / "new" / "salvage.safetensors", network(), network()
    for value in other.parameters():
        value.data.zero_()
    write_vit(path, written, INFO)
    tensors, info = read_vit(path)
    assert info == INFO
    load_vit(other, tensors, "salvage", "tiny")
    for name, value in written.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_another_architecture_is_refused_by_the_first_tensor_that_differs(tmp_path: Path) -> None:
    write_vit(tmp_path / "a", network(), INFO)
    tensors, _ = read_vit(tmp_path / "a")
    wider = network(5)
    before = wider[0].weight.clone()  # type: ignore[index]
    with pytest.raises(UserError, match=r"^salvage does not fit: 0.weight is \[4,3\] here, model=wide needs \[5,3\]$"):
        load_vit(wider, tensors, "salvage", "wide")
    assert torch.equal(wider[0].weight, before)  # type: ignore[index]
    with pytest.raises(UserError, match=r"^salvage does not fit model=deep: 2 of its 6 tensors are missing .*$"):
        load_vit(nn.Sequential(*network(), nn.Linear(4, 4)), tensors, "salvage", "deep")


def test_a_file_that_others_wrote_says_nothing_of_itself(tmp_path: Path) -> None:
    save_file(network().state_dict(), tmp_path / "plain", metadata={"format": "pt"})
    torch.save(network().state_dict(), tmp_path / "torch.pth")
    for path in (tmp_path / "plain", tmp_path / "torch.pth"):
        tensors, info = read_vit(path)
        assert info is None
        assert set(tensors) == set(network().state_dict())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[1]",
        "NaN",
        "{}",
        "[" * 100_000,
        json.dumps({**asdict(INFO), "kind": "oracle"}),
        json.dumps({**asdict(INFO), "kind": 3}),
        json.dumps({**asdict(INFO), "classes": "zero one"}),
        json.dumps({**asdict(INFO), "classes": [1, 2]}),
        json.dumps({**asdict(INFO), "later": 1}),
        json.dumps({name: value for name, value in asdict(INFO).items() if name != "data"}),
        json.dumps(asdict(INFO)).replace('"decoder_depth": 1', '"decoder_depth": ' + "1" * 5000),
    ],
    ids=lambda text: text[-24:] or "nothing",
)
def test_metadata_that_make_no_sense_are_refused(tmp_path: Path, text: str) -> None:
    save_file(network().state_dict(), tmp_path / "x", metadata={"xai.vit": text})
    assert refusal(tmp_path / "x") == f"{tmp_path / 'x'} was written by another version of this framework, or edited"


def test_files_that_are_missing_broken_or_full_of_nan_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing")
    write_vit(tmp_path / "whole", network(), INFO)
    (tmp_path / "torn").write_bytes((tmp_path / "whole").read_bytes()[:-7])
    assert refusal(tmp_path / "torn").startswith("checkpoint ")
    damaged = network()
    damaged[0].bias.data[1] = torch.nan  # type: ignore[index]
    write_vit(tmp_path / "nan", damaged, INFO)
    assert "1 NaN or infinite values in 0.bias" in refusal(tmp_path / "nan")


def test_a_kind_that_nobody_reads_is_not_written() -> None:
    with pytest.raises(ValueError, match=r"kind='oracle' is unknown"):
        VitInfo("oracle", "tiny", "digits", ("zero", "one"), True)


def test_the_file_holds_nothing_but_tensors_and_one_line_of_json(tmp_path: Path) -> None:
    write_vit(tmp_path / "x", network(), INFO)
    metadata = read_weights(tmp_path / "x").metadata
    assert json.loads(metadata["xai.vit"])["classes"] == ["zero", "one"]
    assert set(metadata) == {"xai.vit"}
