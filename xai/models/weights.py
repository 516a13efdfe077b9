"""The one door for weights: safetensors go out, safetensors or torch files come in, and no code is ever run."""

import hashlib
import json
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xai.core import files
from xai.core.errors import UserError
from xai.models.pickles import foreign, foreign_globals, imported, is_textual_pickle

# Where both are held, the averaged weights come first, as in timm: it is they that were evaluated.
_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model")
# What trainings and their tools count, and no answer depends on.
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
_DEEPEST_WRAPPER = 4
_MOST_SHARED = 16  # times that memory may be shared: tied weights share it twice
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES = {*_FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}
_LONGEST_NAME = 120
_MOST_NAMES = 3
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors format
_MOST_PICKLE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Args:
        tensors: Tensors by name, on the CPU, without gradients.
        metadata: Strings by name; empty for a torch file.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_weights(path: str | Path, *, what: str = "checkpoint", require_finite: bool = False) -> Weights:
    """Read tensors from a safetensors file, or from a torch file that needs no code to be read.

    The content decides which of the two it is, never the suffix. What a training wraps around its weights, such as
    `{"state_dict": ...}`, is entered; prefixes of their names go in `match_weights`, which knows what is wanted.

    Args:
        path: The file.
        what: What the file should be, in the words of an error message.
        require_finite: Refuse NaN and infinity.

    Raises:
        UserError: The file is missing, a directory, empty, truncated, no weights file, holds anything but tensors, or
            would have run code.
    """
    path = Path(path)
    label = f"{what} {printable(str(path))}"
    head = _read_head(path, label)
    metadata: dict[str, str] = {}
    # First, for a header's length may begin with the byte that a pickle begins with.
    if _looks_like_safetensors(head):
        tensors, metadata = _read_safetensors(path, label)
    elif head.startswith(b"PK\x03\x04"):
        tensors = _read_torch_zip(path, label)
    elif head.startswith(b"\x80"):
        tensors = _load(path, label, foreign_globals(path), mmap=False)
    elif is_textual_pickle(path, head):
        raise _refused_pickle(label, foreign_globals(path))
    else:
        raise UserError(f"{label} is not a file of weights: give a .safetensors file, or a torch file of tensors")
    _check_storage(tensors, label)
    if not tensors:
        raise UserError(f"{label} holds no tensors: give a file of weights")
    if require_finite:
        check_finite(tensors, label)
    return Weights(tensors, metadata)


def write_weights(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors: the whole file appears under its name, or nothing does.

    Folders are made as needed. Views and shared memory are written out in full.

    Raises:
        UserError: There is nothing to write, the disk is full, or the path cannot be written.
    """
    if not tensors:
        raise UserError(f"no tensors to write to {printable(str(path))}: weights have at least one")
    path = Path(path)
    # Shared memory is refused by safetensors, so each tensor gets its own.
    copies = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    if path.is_dir():
        raise UserError(f"cannot write {printable(str(path))}, it is a directory: give the name of a file in it")

    def write(place: Path) -> None:
        place.touch()
        mode = place.stat().st_mode
        save_file(copies, place, metadata=dict(metadata))
        # safetensors leaves files that nobody but their owner reads; the umask decides that here.
        place.chmod(mode)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, write)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"cannot write {printable(str(path))} ({_reason(error)}): choose another path") from None


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings that a safetensors file says of itself, without its tensors; nothing for any other file."""
    try:
        if not _looks_like_safetensors(_read_head(Path(path), "")):
            return {}
        with safe_open(path, framework="pt", device="cpu") as opened:
            return dict(opened.metadata() or {})
    except Exception:  # whoever reads the tensors says what is wrong
        return {}


def without_prefix(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Names less what a training put before every one of them (`module.`, `_orig_mod.`, `model.`, `backbone.`, ...).

    There is no list of prefixes: one goes where all the wanted names are left then, and no other prefix does the same.
    What has not got it, such as the loss that was trained beside the network, is left out.
    """
    wanted = [name for name in wanted if not _is_counter(name)]
    if not wanted or all(name in state for name in wanted):
        return dict(state)
    last = "." + min(wanted)
    prefixes = {name[: 1 - len(last)] for name in state if name.endswith(last)}
    fitting = [prefix for prefix in prefixes if all(prefix + name in state for name in wanted)]
    if len(fitting) != 1:
        return dict(state)
    (prefix,) = fitting
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in _COUNTERS


def match_weights(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], *, what: str = "checkpoint", model: str
) -> dict[str, Tensor]:
    """Check that a state has exactly the names and shapes that a model needs, but for counters of the training.

    Returns:
        The state by the model's names: without a prefix that all of its own had.

    Raises:
        UserError: A name is missing or unexpected, or else a shape differs; the first few are named.
    """
    state = without_prefix(state, expected.keys())
    counters = {name: shape for name, shape in expected.items() if _is_counter(name)}
    state = {name: value for name, value in state.items() if name in expected or not _is_counter(name)}
    state = {**{name: torch.zeros(shape, dtype=torch.long) for name, shape in counters.items()}, **state}
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    problems = []
    if missing:
        problems.append(f"{len(missing)} of its {len(expected)} tensors are missing ({_few(missing)})")
    if unexpected:
        problems.append(f"{len(unexpected)} of {len(state)} here are unexpected ({_few(unexpected)})")
    if problems:
        raise UserError(f"{what} does not fit model={model}: {', '.join(problems)}; give one made with model={model}")
    for name, shape in expected.items():
        if state[name].shape != shape:
            here, needed = _shape(state[name].shape), _shape(shape)
            raise UserError(f"{what} does not fit: {printable(name)} is {here} here, model={model} needs {needed}")
    return state


def load_weights(network: nn.Module, state: Mapping[str, Tensor], *, what: str = "checkpoint", model: str) -> None:
    """Load tensors into a network of the same architecture.

    Raises:
        UserError: As `match_weights`; the network is as it was then.
    """
    own: Any = network.state_dict()
    expected = {name: value.shape for name, value in own.items()}
    matched: Any = OrderedDict(match_weights(state, expected, what=what, model=model))
    # Some networks ask of which version their names are; these are the network's own.
    matched._metadata = getattr(own, "_metadata", None)
    network.load_state_dict(matched)


def architecture_hash(parameters: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits that two models share when their parameters have the same names and shapes."""
    shapes = sorted((name, list(value.shape)) for name, value in parameters.items())
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Twenty hexadecimal digits (SHA-256) of names, types, shapes and values.

    The order of the mapping, the layout in memory and the device make no difference.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        # repr quotes the name, so no name can pass for another name with a type and a shape behind it.
        digest.update(f"{name!r} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:20]


def check_finite(tensors: Mapping[str, Tensor], label: str) -> None:
    """Refuse tensors with NaN or infinity in them; `label` begins the message.

    Raises:
        UserError: Some value is not finite; the first tensor in which one is gets named.
    """
    for name, value in tensors.items():
        bad = value.numel() - int(value.isfinite().sum())
        if bad:
            raise UserError(
                f"{label} has {bad} NaN or infinite values in {printable(name)}: all values have to be finite"
            )


def printable(text: str) -> str:
    """Make text from a file fit for a terminal: one line, no control characters, not endless."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def check_file(path: Path, what: str) -> None:
    """Refuse a file of weights that is not there or cannot be read, by a `UserError`, without reading it."""
    _read_head(path, f"{what} {printable(str(path))}")


def _read_head(path: Path, label: str) -> bytes:
    """Return the first bytes of a file, or say why there are none."""
    try:
        files.check_file(path, label, "a file of weights")
        with path.open("rb") as file:
            return file.read(16)
    except (OSError, ValueError) as error:
        raise UserError(f"{label} cannot be read ({_reason(error)}): give a readable file of weights") from None


def _looks_like_safetensors(head: bytes) -> bool:
    """Tell by the JSON header, whose length the first eight bytes give; no text passes, its length would be absurd."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _read_safetensors(path: Path, label: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except Exception as error:  # whatever the parser makes of bytes from anywhere
        raise UserError(f"{label} is truncated or damaged ({_reason(error)}): get a whole copy") from None


def _read_torch_zip(path: Path, label: str) -> dict[str, Tensor]:
    found: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.rpartition("/")[2]: member for member in archive.infolist()}
            pickled = members.get("data.pkl")
            if pickled is not None and pickled.file_size <= _MOST_PICKLE_BYTES:
                with archive.open(pickled) as file:
                    found = foreign(imported(file))
    except Exception:  # whatever the parser makes of bytes from anywhere
        raise UserError(f"{label} is truncated or damaged: get a whole copy") from None
    if "constants.pkl" in members:
        raise UserError(f"{label} is a TorchScript program, refused: save its state_dict() as safetensors")
    if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
        # As torch never writes weights: a small file could ask for any amount of memory.
        raise UserError(f"{label} is a compressed archive: give what torch.save or safetensors wrote")
    if pickled is None:
        raise UserError(f"{label} is a zip archive without weights: give a .safetensors or a torch file")
    return _load(path, label, found, mmap=True)


def _load(path: Path, label: str, found: list[str], *, mmap: bool) -> dict[str, Tensor]:
    """Load with torch's restricted unpickler; what it will not have is explained by what the pickle asks for."""
    try:
        with warnings.catch_warnings():
            # Advice on how to load with fewer restrictions is not for our users.
            warnings.simplefilter("ignore")
            # Given a path, torch goes by the suffix; given an open file, by the content, but it cannot map that.
            with path.open("rb") as file:
                source = path if mmap and path.suffix != ".safetensors" else file
                loaded = torch.load(source, weights_only=True, map_location="cpu", mmap=source is path)  # noqa: TID251 - weights only
    except Exception:  # whatever the unpickler makes of bytes from anywhere
        if found:
            raise _refused_pickle(label, found) from None
        raise UserError(f"{label} is truncated, damaged or no file of tensors: get a whole copy") from None
    return _tensors_of(loaded, label)


def _refused_pickle(label: str, found: list[str]) -> UserError:
    would = f"it would have run {_few(found)}" if found else "it is a pickle, and pickles can run code"
    return UserError(f"{label} is refused, nothing was executed: {would}; convert it to safetensors")


def _tensors_of(loaded: Any, label: str) -> dict[str, Tensor]:
    """Unwrap what torch.load returned down to a mapping of names to plain tensors."""
    for _ in range(_DEEPEST_WRAPPER):
        if not isinstance(loaded, Mapping):
            break
        wrapped = [loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)]
        # What is left empty, or says how a network is built, stands before no weights.
        inner = next((each for each in wrapped if _has_tensors(each)), None)
        if inner is None:
            held = [key for key, value in loaded.items() if _holds_tensors(value)]
            if not held and not wrapped:
                break
            if len(held) > 1:
                few = _few([str(key) for key in held])
                raise UserError(f"{label} holds several sets of weights ({few}): save one of them by itself")
            inner = loaded[held[0]] if held else wrapped[0]
        loaded = inner
    if not isinstance(loaded, Mapping):
        raise UserError(f"{label} holds a {type(loaded).__name__}: weights are a mapping of names to tensors")
    tensors: dict[str, Tensor] = {}
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise UserError(f"{label} has a {kind} under {printable(str(name))}: weights are tensors by name")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise UserError(
                f"{label} has a sparse, quantised or empty-shell tensor {printable(name)}: store dense values"
            )
        tensors[name] = value.detach()
    return tensors


def _holds_tensors(value: Any, deepest: int = _DEEPEST_WRAPPER) -> bool:
    """Whether something in a checkpoint is a network's state: tensors by name, or such a mapping wrapped once more."""
    if not deepest or not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value):
        return False
    return all(isinstance(each, Tensor) for each in value.values()) or any(
        _holds_tensors(each, deepest - 1) for each in value.values()
    )


def _has_tensors(value: Any, deepest: int = _DEEPEST_WRAPPER) -> bool:
    """Whether there is a tensor anywhere in something, also where it makes no network's state."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return isinstance(value, Tensor) or (deepest > 0 and any(_has_tensors(each, deepest - 1) for each in parts))


def _check_storage(tensors: Mapping[str, Tensor], label: str) -> None:
    """Refuse number types that no network here has, and tensors that pretend to be larger than what the file holds."""
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors.values()}
    if sum(value.numel() * value.element_size() for value in tensors.values()) > _MOST_SHARED * sum(storages.values()):
        raise UserError(f"{label} has tensors that share far less memory than they claim: store them whole")
    for name, value in tensors.items():
        if value.dtype not in _DTYPES:
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{label} holds {kind} numbers in {printable(name)}: store them as float32 or float16")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(
                f"{label} has {_shape(value.shape)} values in {printable(name)} that share less memory: store it whole"
            )


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text.splitlines()[0].removeprefix("Error while serializing: ").removeprefix("I/O error: "))


def _few(names: list[str]) -> str:
    return ", ".join(printable(name) for name in names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")


def _shape(shape: torch.Size) -> str:
    return f"[{','.join(map(str, shape))}]"
