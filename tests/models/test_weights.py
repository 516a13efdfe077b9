import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.toolbox import Trap, refusal
from xai.core.errors import UserError
from xai.models.weights import fingerprint, match_weights, read_weights, write_weights


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


def tensors() -> dict[str, Tensor]:
    return {
        "a.weight": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor(2.5, dtype=torch.float64),
        "c": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
        "d": torch.tensor([1.5, 65504.0], dtype=torch.float16),
        "e": torch.tensor([True, False]),
        "f": torch.empty(0, 3),
        "g": torch.tensor([2**40], dtype=torch.int64),
    }


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype
        assert got[name].shape == value.shape
        assert torch.equal(got[name], value)


def message(path: Path, **options: bool) -> str:
    text = refusal(read_weights, path, **options)
    assert str(path) in text
    return text


def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def test_round_trip_keeps_types_shapes_values_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "new" / "w.safetensors"
    write_weights(path, tensors(), {"k": "v ü"})
    got = read_weights(path)
    assert_same(got.tensors, tensors())
    assert got.metadata == {"k": "v ü"}
    assert_same(load_file(path), tensors())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: OrderedDict(t),
        lambda t: {"state_dict": t, "epoch": 3, "name": "ViT"},
        lambda t: {"model": {"state_dict": t}, "optimizer": {"lr": 0.1}},
        lambda t: {"model_state_dict": t, "loss": 0.5},
        lambda t: {"state_dict": {"stale": torch.zeros(1)}, "state_dict_ema": t},
        lambda t: {"net": t, "step": torch.tensor(3), "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
        lambda t: {"params": {"weights": t}, "args": {"lr": 0.1}},
        lambda t: {"ema": t, "net": {"stale": torch.zeros(1)}},
        lambda t: {"ema": {}, "model": t},
        lambda t: {"model_ema": {"decay": 0.999, "updates": 5}, "state_dict": t},
        lambda t: {"model": {"name": "resnet18", "head": {"classes": 2}}, "weights": t},
        lambda t: {name: nn.Parameter(value, requires_grad=value.is_floating_point()) for name, value in t.items()},
    ],
)
def test_reads_torch_files_however_wrapped(tmp_path: Path, wrap: object, zipped: bool) -> None:
    path = tmp_path / "w.pt"
    torch.save(wrap(tensors()), path, _use_new_zipfile_serialization=zipped)  # type: ignore[operator]
    got = read_weights(path)
    assert_same(got.tensors, tensors())
    assert got.metadata == {}
    assert not any(value.requires_grad for value in got.tensors.values())


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    names = {"module.a": torch.ones(1), "b": torch.ones(2)}
    torch.save(names, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").tensors.keys() == names.keys()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "backbone.", "model.visual.", "a.b.module."])
def test_a_prefix_of_all_names_goes_where_the_rest_fits_exactly(prefix: str) -> None:
    state = {prefix + name: value for name, value in tensors().items()}
    assert_same(match_weights(state, shapes(tensors()), model="m"), tensors())


def test_what_was_trained_beside_a_network_is_left_out() -> None:
    state = {f"model.{name}": value for name, value in tensors().items()}
    beside = {"criterion.weight": torch.ones(1), "n_averaged": torch.tensor(3)}
    assert_same(match_weights({**state, **beside}, shapes(tensors()), model="m"), tensors())
    more = {**state, "model.more": torch.ones(1)}
    assert "1 of 8 here are unexpected" in refusal(match_weights, more, shapes(tensors()), model="m")


@pytest.mark.parametrize("prefixes", [("a.", "b."), ("", "model.more.")], ids=["two networks", "one in another"])
def test_a_prefix_stays_where_the_rest_would_not_fit(prefixes: tuple[str, str]) -> None:
    state = {prefix + name: value for name, value in tensors().items() for prefix in prefixes}
    assert "does not fit model=m" in refusal(match_weights, state, shapes(tensors()), model="m")


def test_counters_of_a_training_are_neither_missed_nor_unexpected() -> None:
    norm = torch.nn.BatchNorm2d(2)
    wanted = shapes(norm.state_dict())
    state = {name: value for name, value in norm.state_dict().items() if name != "num_batches_tracked"}
    found = match_weights({**state, "total_ops": torch.ones(1), "total_params": torch.ones(1)}, wanted, model="m")
    norm.load_state_dict(found)
    assert set(found) == set(wanted)


def test_several_sets_of_weights_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"student": tensors(), "teacher": tensors()}, tmp_path / "w.pt")
    assert "several sets of weights (student, teacher)" in refusal(read_weights, tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (lambda: {"w": torch.zeros(1).expand(10**7, 10**6)}, "share far less memory than they claim"),
        (lambda: dict.fromkeys(map(str, range(50)), torch.zeros(8)), "share far less memory than they claim"),
        (lambda: {"w": torch.zeros(3, dtype=torch.float8_e4m3fn)}, "float8_e4m3fn numbers in w"),
        (lambda: {"w": torch.zeros(3, dtype=torch.complex64)}, "complex64 numbers in w"),
    ],
    ids=["stride 0", "shared", "fp8", "complex"],
)
def test_tensors_that_no_network_has_are_refused(tmp_path: Path, made: Callable[[], object], wanted: str) -> None:
    torch.save(made(), tmp_path / "w.pt")
    assert wanted in message(tmp_path / "w.pt", require_finite=True)


def test_a_wrapper_that_holds_itself_ends(tmp_path: Path) -> None:
    inner: dict[str, object] = {}
    inner["model"] = inner["other"] = inner
    torch.save(inner, tmp_path / "w.pt")
    assert "weights are tensors by name" in refusal(read_weights, tmp_path / "w.pt")


def test_a_single_tensor_named_model_is_no_wrapper(tmp_path: Path) -> None:
    torch.save({"model": torch.ones(2)}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").tensors.keys() == {"model"}


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "w.pt")
    torch.save(tensors(), tmp_path / "w.safetensors")
    assert_same(read_weights(tmp_path / "w.pt").tensors, tensors())
    assert_same(read_weights(tmp_path / "w.safetensors").tensors, tensors())


@pytest.mark.parametrize("length", range(1, 280, 8))
def test_no_length_of_a_header_passes_for_a_pickle(tmp_path: Path, length: int) -> None:
    write_weights(tmp_path / "w.safetensors", {"a": torch.ones(1)}, {"k": "v" * length})
    assert read_weights(tmp_path / "w.safetensors").metadata == {"k": "v" * length}


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_is_refused_and_never_runs(tmp_path: Path, marker: Path, suffix: str, protocol: int) -> None:
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(pickle.dumps({"a": Trap(marker)}, protocol=protocol))
    text = message(path)
    assert "posix.mkdir" in text
    assert "nothing was executed" in text
    assert "convert it to safetensors" in text


@pytest.mark.parametrize("protocol", [2, 4])
def test_all_that_would_have_run_is_named_once(tmp_path: Path, marker: Path, protocol: int) -> None:
    class Untouch(Trap):
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.rmdir, (self.marker,)

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps([Trap(marker), Untouch(marker), Trap(marker)], protocol=protocol))
    assert "would have run posix.mkdir, posix.rmdir;" in message(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["value", "beside", "inside"])
def test_code_in_a_torch_file_is_refused_and_never_runs(tmp_path: Path, marker: Path, where: str, zipped: bool) -> None:
    evil = Trap(marker)
    content = {
        "value": {"a": torch.ones(2), "b": evil},
        "beside": {"state_dict": {"a": torch.ones(2)}, "args": evil},
        "inside": {"state_dict": {"a": evil}},
    }[where]
    path = tmp_path / "evil.safetensors"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "posix.mkdir" in message(path)


def test_the_marker_would_appear_if_code_ran(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "executed")))
    assert (tmp_path / "executed").is_dir()


def test_forcing_torch_to_trust_does_not_open_the_door(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"a": Trap(marker)}, tmp_path / "evil.pt")
    message(tmp_path / "evil.pt")


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("program/data.pkl", pickle.dumps({}))
        archive.writestr("program/constants.pkl", pickle.dumps(()))
        archive.writestr("program/code/network.py", "pass\n" * 1000)  # which torch packs, as it does not pack weights
    assert "TorchScript" in message(path)


def test_a_missing_file_is_answered_with_its_neighbours(tmp_path: Path) -> None:
    write_weights(tmp_path / "classifier.safetensors", tensors(), {})
    text = message(tmp_path / "clasifier.safetensors")
    assert "does not exist: did you mean classifier.safetensors?" in text
    assert "classifier.safetensors" not in message(tmp_path / "zzz").partition("does not exist")[2]
    assert "there is no folder" in message(tmp_path / "nowhere" / "w.pt")
    (tmp_path / "link.pt").symlink_to("gone.pt")
    assert "link.pt is a link to gone.pt, which is not there" in message(tmp_path / "link.pt")


def test_what_is_no_file_of_weights_is_named_for_what_it_is(tmp_path: Path) -> None:
    assert "is a folder" in message(tmp_path)
    path = tmp_path / "w.pt"
    for content, expected in [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not a file of weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a file of weights"),
        (b"...\n", "is not a file of weights"),
        (b"}\n", "is not a file of weights"),
        (b"{}", "is not a file of weights"),
        (bytes(1000), "is not a file of weights"),
        (b"PK\x03\x04", "is truncated or damaged"),
        (b"\x80\x02", "truncated, damaged"),
    ]:
        path.write_bytes(content)
        assert expected in message(path)


def test_a_zip_of_arrays_holds_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, a=np.ones(3))
    assert "zip archive without weights" in message(path)


def test_an_archive_that_would_grow_is_refused_before_it_does(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1 << 16)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "small.pt", "w") as small:
        for member in whole.infolist():
            small.writestr(member.filename, whole.read(member), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "small.pt").stat().st_size < 10_000
    assert "compressed archive: give" in refusal(read_weights, tmp_path / "small.pt")


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, form: str, kept: float) -> None:
    path, large = tmp_path / "w.bin", {"a": torch.randn(3000), "b": torch.randn(50)}
    if form == "safetensors":
        save_file(large, path)
    else:
        torch.save(large, path, _use_new_zipfile_serialization=form == "zip")
    assert_same(read_weights(path).tensors, large)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert "truncated" in message(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": torch.ones(1), "b": 3}, "int under b"),
        ({"a": torch.ones(1), 7: torch.ones(1)}, "under 7"),
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
        ({}, "holds no tensors"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"ema": {"decay": 0.999, "shadow": [torch.ones(1)]}, "model": {"a": torch.ones(1)}}, "float under decay"),
        ({"a": torch.eye(2).to_sparse()}, "sparse"),
        ({"a": torch.ones(2, device="meta")}, "empty-shell"),
        ({"a\x1b[31m\n": "red"}, "'a\\x1b[31m\\n'"),
    ],
)
def test_anything_but_tensors_by_name_is_refused(tmp_path: Path, content: object, expected: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert expected in message(tmp_path / "w.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_only_when_asked(tmp_path: Path, value: float) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, {"good": torch.ones(3), "bad": torch.tensor([1.0, value, value])}, {})
    assert read_weights(path).tensors["bad"].shape == (3,)
    assert "2 NaN or infinite values in bad" in message(path, require_finite=True)
    write_weights(path, tensors(), {})
    assert_same(read_weights(path, require_finite=True).tensors, tensors())


def test_views_and_shared_memory_are_written_in_full(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    shared = {"whole": whole, "again": whole, "transposed": whole.T}
    shared |= {"part": whole[1:, ::2], "wide": whole[:1].expand(5, 4)}
    write_weights(tmp_path / "w.safetensors", shared, {})
    assert_same(read_weights(tmp_path / "w.safetensors").tensors, shared)


def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in refusal(write_weights, tmp_path / "file" / "w.safetensors", tensors(), {})
    assert "is a directory" in refusal(write_weights, tmp_path, tensors(), {})
    assert "no tensors to write" in refusal(write_weights, tmp_path / "w.safetensors", {}, {})


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    before = os.umask(0o027)
    try:
        write_weights(path, tensors(), {})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_match_weights() -> None:
    state = {"visual.conv1.weight": torch.ones(768, 3, 2, 2), "proj": torch.ones(4)}
    match_weights(state, shapes(state), what="checkpoint", model="clip_vit_b32")
    other = {**shapes(state), "visual.conv1.weight": torch.Size([8, 3, 1, 1])}
    told = refusal(match_weights, state, other, model="clip_vit_l14")
    assert "visual.conv1.weight is [768,3,2,2] here, model=clip_vit_l14 needs [8,3,1,1]" in told
    wanted = {"proj": state["proj"].shape, **{f"layer{i}": torch.Size([1]) for i in range(5)}}
    text = refusal(match_weights, state, wanted, what="the file", model="m")
    start = "the file does not fit model=m: 5 of its 6 tensors are missing (layer0, layer1, layer2, ...)"
    assert text.startswith(start)
    assert "1 of 2 here are unexpected (visual.conv1.weight)" in text


def test_fingerprint_ignores_order_and_layout() -> None:
    original = tensors()
    reordered = dict(reversed(original.items()))
    reordered["a.weight"] = original["a.weight"].T.contiguous().T
    assert not reordered["a.weight"].is_contiguous()
    reordered["d"] = original["d"].repeat_interleave(2)[::2]
    assert fingerprint(reordered) == fingerprint(original)
    assert len(fingerprint(original)) == 20
    assert int(fingerprint(original), 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"a.weight": torch.arange(6.0).reshape(3, 2)},
        {"a.weight": torch.arange(6.0).reshape(2, 3).nextafter(torch.tensor(9.0))},
        {"b": torch.tensor(2.5)},
        {"c": torch.tensor([1.5, 0.0], dtype=torch.bfloat16)},
        {"c": torch.tensor([1.5, -0.0], dtype=torch.bfloat16).view(torch.float16)},
        {"f": torch.empty(3, 0)},
        {"h": torch.empty(0)},
    ],
)
def test_fingerprint_sees_names_types_shapes_and_bytes(change: dict[str, Tensor]) -> None:
    assert fingerprint({**tensors(), **change}) != fingerprint(tensors())


def test_values_cannot_pose_as_another_tensor() -> None:
    one = {"a": torch.tensor(list(b"x'b' torch.uint8 [1]\ny"), dtype=torch.uint8)}
    two = {"a": torch.tensor(list(b"x"), dtype=torch.uint8), "b": torch.tensor(list(b"y"), dtype=torch.uint8)}
    assert fingerprint(one) != fingerprint(two)


def test_damage_anywhere_raises_nothing_but_the_one_line(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(4)}, buffer)
    whole, generator = bytearray(buffer.getvalue()), torch.Generator().manual_seed(0)
    refused = []
    for _ in range(60):
        damaged = bytearray(whole)
        for place in torch.randint(0, len(whole), (20,), generator=generator).tolist():
            damaged[place] ^= 0xA5
        (tmp_path / "w.pt").write_bytes(damaged)
        try:
            read_weights(tmp_path / "w.pt")
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert all(text.isprintable() for text in refused)
