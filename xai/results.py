"""What an evaluation leaves behind: `result.json` for reading, `attributions.safetensors` for recomputing its numbers.

Evaluations write them; tables, figures and reports read them and nothing else.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from xai.core.errors import UserError
from xai.core.files import write_atomically
from xai.core.store import Artifact

RESULT_FILE = "result.json"
TENSORS_FILE = "attributions.safetensors"

_UNFINISHED = (".partial", ".damaged-")
"""Parts of the names under which the store keeps what is not whole."""


@dataclass(frozen=True)
class Result:
    """One evaluation: one row of a table, of one run.

    Args:
        method: The method that was run, for example `transfer`.
        role: The row it is in a table; see `xai.reports.roles`.
        data: The data set it was measured on.
        source: The data set the explanations were learned on, None where there is none.
        model: The classifier's name.
        seed: Seed of the run.
        params: What the run is labelled with: alpha, lambda1, lambda2 and the like.
        metrics: Means over the images; NaN where a metric is undefined.
        n_images: How many images were measured.
        seconds: What the evaluation took.
        peak_memory_bytes: The most memory in use up to its end.
        split: `test` or `validation`.
        chance: What maps that know nothing of the image score, by metric.
        lineage: Keys of all it was made from, package versions, commit.
    """

    method: str
    role: str
    data: str
    source: str | None
    model: str
    seed: int
    params: dict[str, float]
    metrics: dict[str, float]
    n_images: int
    seconds: float
    peak_memory_bytes: int
    split: str
    chance: dict[str, float] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)


def write_result(folder: Path, result: Result, tensors: Mapping[str, Tensor]) -> None:
    """Write the two files of a result, each atomically, `result.json` last, so that where it is the other is too.

    Args:
        folder: An existing directory; files of an earlier result there are replaced.
        result: The numbers; metrics and chance levels that are not finite become null.
        tensors: attributions [N, h, w], targets [N], labels [N] and, where they exist, logits [N, C],
            reference [N, h, w], regions uint8 [N, H, W].

    Raises:
        UserError: There are no attributions, a tensor has another N than n_images, or a number other than a metric is
            not finite, which strict JSON cannot say.
    """
    if "attributions" not in tensors:
        raise UserError(f"a result needs the tensor attributions; it was given {', '.join(tensors) or 'none'}")
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or len(tensor) != result.n_images:
            raise UserError(
                f"{name} has shape {tuple(tensor.shape)}; a result of {result.n_images} images has that many"
            )
    record = asdict(result)
    for name in ("metrics", "chance"):
        record[name] = {key: value if math.isfinite(value) else None for key, value in record[name].items()}
    try:
        text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"this result of {result.role} cannot be written as strict JSON: {error}") from error
    # A view of a larger tensor would drag all of it along, and an expanded one cannot be saved at all.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(folder / TENSORS_FILE, safetensors.torch.save(whole))
    write_atomically(folder / RESULT_FILE, (text + "\n").encode())


def copy_result(artifact: Artifact, folder: Path) -> None:
    """Copy the two files of a result out of the store, `result.json` last; the folder is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TENSORS_FILE, RESULT_FILE):
        write_atomically(folder / name, artifact.file(name).read_bytes())


def read_result(folder: Path) -> Result:
    """Read `folder`/result.json; a null among the metrics and chance levels becomes NaN, unknown keys are passed over.

    Raises:
        UserError: One of the two files is missing, or result.json is not what `write_result` writes.
    """
    folder = Path(folder)
    path = folder / RESULT_FILE
    for name in (RESULT_FILE, TENSORS_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no {name}; a result is a folder with {RESULT_FILE} and {TENSORS_FILE}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not strict JSON ({error}); evaluate again to replace it") from error
    if not isinstance(record, dict):
        raise UserError(f"{path} holds a {type(record).__name__}; a result is an object of {len(fields(Result))} keys")
    values = {name: _checked(path, record, name) for name in _READERS}
    return Result(**values)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a result, by the names `write_result` lists.

    Raises:
        UserError: The file is missing, truncated or no safetensors file.
    """
    path = Path(folder) / TENSORS_FILE
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no {TENSORS_FILE}; evaluate again to make it") from error
    except SafetensorError as error:
        raise UserError(f"{path} is no whole safetensors file ({error}); evaluate again to replace it") from error


def collect(root: Path) -> list[Result]:
    """All results in folders at or under `root`, in the order of their paths; what the store set aside is left out.

    Raises:
        UserError: There is none, or one cannot be read.
    """
    root = Path(root)
    folders = sorted(path.parent for path in root.rglob(RESULT_FILE))
    whole = [f for f in folders if not any(mark in part for part in f.relative_to(root).parts for mark in _UNFINISHED)]
    if not whole:
        raise UserError(f"no {RESULT_FILE} in or under {root}; give a folder that an evaluation wrote to")
    return [read_result(folder) for folder in whole]


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_number, value.values()))


def _scores(value: Any) -> bool:
    return isinstance(value, dict) and all(v is None or _number(v) for v in value.values())


_READERS = {
    "method": (_text, "a string"),
    "role": (_text, "a string"),
    "data": (_text, "a string"),
    "source": (lambda value: value is None or _text(value), "a string or null"),
    "model": (_text, "a string"),
    "seed": (_whole, "a whole number"),
    "params": (_numbers, "an object of numbers"),
    "metrics": (_scores, "an object of numbers and nulls"),
    "n_images": (_whole, "a whole number"),
    "seconds": (_number, "a number"),
    "peak_memory_bytes": (_whole, "a whole number"),
    "split": (_text, "a string"),
    "chance": (_scores, "an object of numbers and nulls"),
    "lineage": (lambda value: isinstance(value, dict), "an object"),
}


def _checked(path: Path, record: dict[str, Any], name: str) -> Any:
    is_right, wanted = _READERS[name]
    if name not in record:
        raise UserError(f"{path} has no {name}; a result has {', '.join(_READERS)}")
    value = record[name]
    if not is_right(value):
        raise UserError(f"{path}: {name} is {json.dumps(value)[:60]}; it has to be {wanted}")
    if is_right is _scores:
        return {key: math.nan if score is None else float(score) for key, score in value.items()}
    return value
