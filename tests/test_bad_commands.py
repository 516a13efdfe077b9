"""Some hundred commands that cannot be: each gets one line that says what is wrong and what would be right."""

import functools
import math
import os
import pickle
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tests.composed import composed as hydra_composes
from xai import cli
from xai.app import check
from xai.core import entries
from xai.core.errors import UserError, visible
from xai.core.guard import check_config
from xai.core.store import Store
from xai.tasks import early

RIGHT = re.compile(
    r"must|use |choose|did you mean|known here|give|set |leave|add |takes? |belongs to|--help|make |train|begin |"
    r"check the |has to |list|there (?:are|is no folder) |name |lower |instead|needs |mended|"
    r"look into|change the folder",
    re.IGNORECASE,
)
"""Words that say what would be right."""

COMMANDS = [
    (typed, wanted.split(" | ") if wanted else [])
    for typed, _, wanted in (
        line.partition(" | ")
        for line in Path(__file__).with_name("bad_commands.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
]
"""Commands, and what the line has to say besides a word of what was typed."""
TYPED = [typed for typed, _ in COMMANDS]

OWN = {
    "tab": b"# @package _global_\n\tseed: 1\n",
    "twice": b"# @package _global_\nseed: 1\nseed: 2\n",
    "latin": b"# @package _global_\nname: caf\xe9\n",
    "number": b"# @package _global_\ndefaults: 5\n",
    "bare": b"seed: 1\n",
    "list": b"# @package _global_\n[1, 2]\n",
    "code": b"# @package _global_\nhydra: {callbacks: {x: {_target_: sympy.sympify}}}\n",
    "smuggled": b"# @package _global_\nexplainers: {rise: {version: 1, root: {}, formatters: {a: {(): os.system, "
    b"command: touch ran}}}}\nhydra: {job_logging: '${explainers.rise}'}\n",
    "resolved": b"# @package _global_\nx: '${oc.create:{_target_: os.system}}'\n",
    "file": b"# @package _global_\nhydra: {job_logging: {handlers: {f: {class: logging.FileHandler, filename: binary, "
    b"mode: w}}, root: {handlers: [f]}}}\n",
    "leaves": b"# @package _global_\nhydra: {run: {dir: /tmp/elsewhere}}\n",
    "environment": b"# @package _global_\nhydra: {job: {env_set: {LD_PRELOAD: x.so}}}\n",
    "unread": b"# @package _global_\nseed: ${nothing\n",
    "data": b"# @package _global_\ndata: 5\n",
    "again": b"# @package _global_\na: &a [1, 1]\nb: [*a, *a]\n",
    "number_alone": b"5\n",
    "huge": b"# @package _global_\nname: " + b"a" * (1 << 20) + b"\n",
    "model": b"# @package _global_\nmodel: 5\n",
    "hydra": b"# @package _global_\nhydra: [1]\n",
    "nothing": b"# @package _global_\ndefaults: null\nmodel: 5\n",
    "mark": b"\xef\xbb\xbf# @package _global_\nseed: 1\n",
}
"""Experiments of a user's own that cannot be read, or would run code or write where they must not."""
SWEEPS = {
    "binary": bytes(range(256)),
    "latin": b"title: caf\xe9\n",
    "null_axes": b"title: x\naxes: null\n",
    "code": b"axes: {+hydra.callbacks.x._target_: os.system, seed: '0,1'}\n",
    "leaves": b"axes: {hydra.sweep.dir: /tmp/elsewhere, seed: '0,1'}\n",
    "many": b"axes: {seed: 'range(0,1000000)'}\n",
}
"""Sweep files of a user's own that are none, or would run code, write elsewhere, or never end."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are typed; it fails what would begin to work."""

    def begin(*_: Any, **__: Any) -> None:
        raise AssertionError("work has begun")

    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    for name, content in OWN.items():
        (tmp_path / "own" / "experiment" / f"{name}.yaml").write_bytes(content)
    (tmp_path / "own" / "sweep" / "folder.yaml").mkdir(parents=True)
    for name, content in SWEEPS.items():
        (tmp_path / "own" / "sweep" / f"{name}.yaml").write_bytes(content)
    (tmp_path / "own" / "package.yaml").write_text("defaults: [config, _self_]\nhydra: {searchpath: ['pkg://xml']}\n")
    (tmp_path / "own" / "data").mkdir()
    (tmp_path / "own" / "data" / "mine.yaml").write_text("name: mine\nstripes: 3\n")
    (tmp_path / "own" / "explainer").mkdir()
    (tmp_path / "own" / "explainer" / "listed.yaml").write_text("[1]\n")
    os.mkfifo(tmp_path / "own" / "pipe")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(Store, "get", begin)
    entries.verified.clear()  # what tests of before have used is gone with their folders
    return tmp_path


def check_line(status: int, err: str, typed: str, folder: Path, wanted: Sequence[str] = ()) -> None:
    assert status not in (0, None), typed
    assert err.startswith("error: "), (typed, err)
    assert err.endswith("\n"), (typed, err)
    assert err.count("\n") == 1, (typed, err)
    assert "Traceback" not in err
    named = words(typed)
    assert wanted or any(word in err for word in named), (typed, err)
    assert all(word in err for word in wanted), (typed, err)
    # What would be right stands beside what is wrong, and is no word of that.
    advice = err
    for word in sorted(named, key=len, reverse=True):
        advice = advice.replace(word, "") if len(word) > 3 else advice
    assert RIGHT.search(advice), (typed, err)
    assert {path.name for path in folder.iterdir()} == {"binary", "empty", "own"}, typed


def words(typed: str) -> set[str]:
    """What may be named: the pieces of what was typed, as it was typed."""
    found = set()
    for argument in shlex.split(typed):
        key, equals, value = argument.partition("=")
        pieces = [*key.lstrip("+~").split("."), key.lstrip("+~"), *re.split(r"[\[\],(){}:]", value)]
        found |= {piece for piece in (argument, *pieces) if piece} if equals else {argument.lstrip("~+") or argument}
    return found


@pytest.mark.parametrize(("typed", "wanted"), COMMANDS)
def test_a_bad_command(
    typed: str, wanted: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", *shlex.split(typed)])
    status = cli.main()
    check_line(status, capsys.readouterr().err, typed, folder, wanted)


# What argparse, Hydra's parser, its composition and our checks refuse.
@pytest.mark.parametrize("typed", ["--foo", "seed=${", "experiment=smok", "name=.."])
def test_a_bad_command_in_a_process_of_its_own(typed: str, folder: Path) -> None:
    run = "import sys; from xai.cli import main; sys.argv[0] = 'run.py'; sys.exit(main())"
    command = [sys.executable, "-c", run, *shlex.split(typed)]
    ours = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ours)
    check_line(done.returncode, done.stderr, typed, folder)


# Every setting of every task; what Hydra composes is shared between them.

TASKS = {
    "vectors": (),
    "salvage": ("study=salvage",),
    "ranking": ("study=ranking",),
    "classifier": ("task=train",),
    "surrogate": ("task=train", "method=surrogate"),
    "cnn": ("task=train", "model=cnn_tiny"),
    "compare": ("task=compare", "model=efficientnet_lite0"),
    "explain": ("task=explain", "image=a", "row=grad_cam"),
    "apply_vector": ("task=apply_vector", "vector=v", "checkpoint=binary"),
    "supervise": ("task=supervise",),
}
ANY = re.compile(r"hydra|explainer|metric\.|metric$|study$|task$|method$|row$|source|data|model\.name|probe|figures")
"""What is not a setting of every task, or has tests of its own above."""


@functools.cache
def kept(task: str) -> bytes:
    return pickle.dumps(hydra_composes(*TASKS[task]))


def composed(task: str) -> DictConfig:
    """One's own, in a third of the time that a copy takes."""
    return cast(DictConfig, pickle.loads(kept(task)))


@functools.cache
def known() -> dict[str, dict[str, early.Tree]]:
    """What all settings of the framework may be, asked once for all tests."""
    return early.collected()


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        at = f"{path}.{key}" if path else str(key)
        yield from leaves(value, at) if isinstance(value, dict) and value else [(at, value)]


def wrong(task: str) -> Iterator[str]:
    """A wrong type and a misspelt key for every setting, and a number out of all ranges for every number."""
    raw = OmegaConf.to_container(composed(task))
    for path, value in leaves(raw):
        if ANY.match(path) or (isinstance(value, str) and "${" in value):
            continue
        yield f"{path}x=1"
        yield f"{path}={{a:1}}"
        if isinstance(value, bool | int | float):
            yield f"{path}=word"
            yield f"{path}=[1]"
            yield f"{path}=-1e99"
            yield f"{path}=null"


def one_line(task: str, typed: str, capsys: Any) -> tuple[int, str, str]:
    """What `cli.main` does after it has composed what does not change; and what is said before classes are imported."""
    told = []

    def job() -> None:
        config = composed(task)
        given = OverridesParser.create().parse_overrides(cli.overrides([typed]))
        ConfigLoaderImpl._apply_overrides_to_config(given, config)
        check_config(config)
        keys = [*(each.partition("=")[0] for each in TASKS[task]), typed.partition("=")[0]]
        try:
            early.check_typed(config, keys)
        except UserError as error:
            told.append(f"error: {visible(str(error))}\n")
        check(config, keys)

    return cli.report_errors(job), capsys.readouterr().err, "".join(told)


@pytest.mark.slow
def test_every_setting_of_every_task(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    seen: set[str] = set()
    may_be_null, at_once = [], 0
    monkeypatch.setattr(early, "kept", known)
    for task in TASKS:
        monkeypatch.setattr(sys, "argv", ["run.py", *TASKS[task]])
        for typed in wrong(task):
            if typed in seen:
                continue
            seen.add(typed)
            status, err, told = one_line(task, typed, capsys)
            assert told in ("", err), typed  # what is refused at once is what the classes refuse, in their words
            at_once += bool(told)
            if status == 0 and typed.endswith("=null"):
                may_be_null.append(typed)
                continue
            check_line(status, err, typed, folder)
    assert len(seen) - len(may_be_null) + len(TYPED) > 600
    assert at_once > 150


@pytest.mark.parametrize("task", TASKS)
def test_no_default_is_refused_where_it_is_typed(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "kept", known)
    config = composed(task)
    early.check_typed(config, [*map(str, config), *(path for path, _ in leaves(OmegaConf.to_container(config)))])


@pytest.mark.parametrize("value", [b"bytes", Path("path"), "\udc80", 10**18, math.nan, [1, [2]], True])
def test_what_only_a_file_can_hold_is_left_to_the_classes(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "kept", known)
    for key in ("seed", "model", "transfer.lambda2", "data.canvas", "trainer.precision"):
        config = composed("vectors")
        OmegaConf.set_struct(config, False)
        with suppress(OmegaConfBaseException):
            OmegaConf.update(config, key, value)
        with suppress(UserError):
            early.check_typed(config, [key, "model.image_size", "model.towers.width"])
