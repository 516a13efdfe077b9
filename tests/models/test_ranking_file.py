import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.models.test_dpt import TINY
from xai.core.errors import UserError
from xai.models.ranking_file import RankingInfo, part_of, read_ranking, write_ranking
from xai.models.vit_file import VitInfo, write_vit

INFO = RankingInfo(
    *("tiny", "digits", ("zero", "one"), False, ""),
    (0.5, 0.4, 0.3),
    (0.2, 0.2, 0.2),
    (0, 2),
    replace(TINY, norm="group"),
)


def network(width: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(width)
        return nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width))


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_ranking(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_network_by_network(tmp_path: Path) -> None:
    path, networks = tmp_path / "new" / "x", {"classifier": network(4), "decoder": network(5)}
    write_ranking(path, networks, INFO)
    tensors, info = read_ranking(path)
    assert info == INFO
    for name, written in networks.items():
        part, expected = part_of(tensors, name), written.state_dict()
        assert part.keys() == expected.keys()
        assert all(torch.equal(part[key], value) for key, value in expected.items())
    assert part_of(tensors, "class") == {}


def test_files_of_others_say_nothing_of_themselves(tmp_path: Path) -> None:
    save_file(network(4).state_dict(), tmp_path / "plain")
    write_vit(tmp_path / "vit", network(4), VitInfo("classifier", "tiny", "digits", ("zero", "one"), False))
    for path in (tmp_path / "plain", tmp_path / "vit"):
        tensors, info = read_ranking(path)
        assert info is None
        assert set(tensors) == set(network(4).state_dict())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "NaN",
        "[" * 100_000,
        json.dumps({**asdict(INFO), "later": 1}),
        json.dumps({**asdict(INFO), "levels": [0.5]}),
        json.dumps({**asdict(INFO), "decoder": None}),
        json.dumps({**asdict(INFO), "decoder": {**asdict(TINY), "norm": "layer"}}),
        json.dumps({name: value for name, value in asdict(INFO).items() if name != "backbone"}),
    ],
    ids=lambda text: text[-24:] or "nothing",
)
def test_edited_metadata_are_refused(tmp_path: Path, text: str) -> None:
    save_file(network(4).state_dict(), tmp_path / "x", metadata={"xai.ranking": text})
    assert refusal(tmp_path / "x") == f"{tmp_path / 'x'} was written by another version of this framework, or edited"


def test_files_that_are_missing_torn_or_hold_nan_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "missing")
    write_ranking(tmp_path / "whole", {"decoder": network(4)}, INFO)
    (tmp_path / "torn").write_bytes((tmp_path / "whole").read_bytes()[:-7])
    assert refusal(tmp_path / "torn").startswith("checkpoint ")
    damaged = network(4)
    damaged[0].bias.data[1] = torch.nan  # type: ignore[index]
    write_ranking(tmp_path / "nan", {"decoder": damaged}, INFO)
    assert "1 NaN or infinite values in decoder.0.bias" in refusal(tmp_path / "nan")
