"""The one door for weights: safetensors go out, safetensors or torch files come in, and no code is ever run."""

import hashlib
import itertools
import os
import pickletools
import secrets
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xai.core.errors import UserError

_WRAPPERS = ("state_dict", "model")
_PREFIX = "module."  # what DataParallel and DistributedDataParallel put before every name
_LONGEST_NAME = 120
_MOST_NAMES = 3
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors format
# A pickle of weights has a few operations a tensor; what has more than this was made to keep a scanner busy.
_MOST_OPERATIONS = 2_000_000
_MOST_PICKLE_BYTES = 256 * 2**20
# A legacy torch file is five pickles in a row (magic number, version, platform, the object, storage keys), then bytes.
_LEGACY_PICKLES = 5


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

    The content decides which of the two it is, never the suffix. `{"state_dict": ...}` and `{"model": ...}` are
    unwrapped, and so is a `module.` before every name.

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
        tensors = _load(path, label, _foreign_globals(path), mmap=False)
    elif _is_textual_pickle(path, head):
        raise _refused_pickle(label, _foreign_globals(path))
    else:
        raise UserError(f"{label} is not a file of weights: give a .safetensors file, or a torch file of tensors")
    tensors = _without_prefix(tensors)
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
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        save_file(copies, temporary, metadata=dict(metadata))
        # safetensors leaves files that nobody but their owner reads; the umask decides that here.
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"cannot write {printable(str(path))} ({_reason(error)}): choose another path") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def match_weights(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size], *, what: str = "checkpoint", model: str
) -> None:
    """Check that a state has exactly the names and shapes that a model needs.

    Args:
        state: Tensors by name.
        expected: Shapes by name.
        what: What the state is, in the words of an error message.
        model: Name of the model configuration.

    Raises:
        UserError: A name is missing or unexpected, or else a shape differs; the first few are named.
    """
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


def _read_head(path: Path, label: str) -> bytes:
    """Return the first bytes of a file, or say why there are none."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        raise UserError(f"{label} does not exist: {_advice(path)}") from None
    except IsADirectoryError:
        raise UserError(f"{label} is a directory: give the file of weights in it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{label} cannot be read ({_reason(error)}): give a readable file of weights") from None
    if not head:
        raise UserError(f"{label} is empty: give a file of weights")
    return head


def _advice(path: Path) -> str:
    """Say which names near the wanted one there are."""
    try:
        names = sorted(entry.name for entry in os.scandir(path.parent))
    except OSError:
        return f"there is no folder {printable(str(path.parent))}"
    near = get_close_matches(path.name, names, n=_MOST_NAMES, cutoff=0.5)
    return f"did you mean {_few(near)}?" if near else "check the path"


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
    foreign: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.rpartition("/")[2]: member for member in archive.infolist()}
            pickled = members.get("data.pkl")
            if pickled is not None and pickled.file_size <= _MOST_PICKLE_BYTES:
                with archive.open(pickled) as file:
                    foreign = _foreign(_globals(file))
    except Exception:  # whatever the parser makes of bytes from anywhere
        raise UserError(f"{label} is truncated or damaged: get a whole copy") from None
    if "constants.pkl" in members:
        raise UserError(f"{label} is a TorchScript program, refused: save its state_dict() as safetensors")
    if pickled is None:
        raise UserError(f"{label} is a zip archive without weights: give a .safetensors or a torch file")
    return _load(path, label, foreign, mmap=True)


def _load(path: Path, label: str, foreign: list[str], *, mmap: bool) -> dict[str, Tensor]:
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
        if foreign:
            raise _refused_pickle(label, foreign) from None
        raise UserError(f"{label} is truncated, damaged or no file of tensors: get a whole copy") from None
    return _tensors_of(loaded, label)


def _refused_pickle(label: str, foreign: list[str]) -> UserError:
    would = f"it would have run {_few(foreign)}" if foreign else "it is a pickle, and pickles can run code"
    return UserError(f"{label} is refused, nothing was executed: {would}; convert it to safetensors")


def _tensors_of(loaded: Any, label: str) -> dict[str, Tensor]:
    """Unwrap what torch.load returned down to a mapping of names to plain tensors."""
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
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


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith(_PREFIX) and name != _PREFIX for name in tensors):
        return {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    return tensors


def _is_textual_pickle(path: Path, head: bytes) -> bool:
    """Tell whether the file is a pickle of protocol 0 or 1, which begins with no mark of its own."""
    if head[:1] not in (b"(", b"c", b"}", b"]"):
        return False
    try:
        with path.open("rb") as file:
            for count, _ in enumerate(pickletools.genops(file)):
                if count > _MOST_OPERATIONS:
                    return False
    except Exception:  # not a pickle, then
        return False
    return True


def _foreign_globals(path: Path) -> list[str]:
    """Name what the pickles of a legacy torch file, or a bare pickle, would import beyond the parts of a tensor."""
    found: list[str] = []
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES):
            found += _globals(file)
    return _foreign(found)


def _globals(file: IO[bytes]) -> Iterator[str]:
    """Yield the dotted names that one pickle imports, read as far as it can be; nothing is executed."""
    strings: list[str] = []
    memo: dict[Any, str] = {}
    with suppress(Exception):  # a damaged pickle ends here; the loader tells the rest
        for opcode, argument, _ in itertools.islice(pickletools.genops(file), _MOST_OPERATIONS):
            if opcode.name in ("GLOBAL", "INST"):
                yield ".".join(str(argument).split(" ", 1))
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
                strings.append(memo.get(argument, "?"))
            elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if argument is None else argument] = strings[-1] if strings else "?"
            elif isinstance(argument, str):
                strings.append(argument)


def _foreign(names: Iterable[str]) -> list[str]:
    """Keep the names that are no parts of a tensor, each once, in order."""
    return [name for name in dict.fromkeys(names) if not _is_tensor_part(name)]


def _is_tensor_part(name: str) -> bool:
    if name.startswith("torch._utils._rebuild_") or name in ("collections.OrderedDict", "torch.Size", "torch.device"):
        return True
    module, _, leaf = name.rpartition(".")
    is_dtype = module == "torch" and isinstance(getattr(torch, leaf, None), torch.dtype)
    return is_dtype or (module.startswith("torch") and leaf.endswith("Storage"))


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text.splitlines()[0].removeprefix("Error while serializing: ").removeprefix("I/O error: "))


def _few(names: list[str]) -> str:
    return ", ".join(printable(name) for name in names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")


def _shape(shape: torch.Size) -> str:
    return f"[{','.join(map(str, shape))}]"
