"""Some hundred commands that cannot be: each gets one line that says what is wrong and what would be right."""

import functools
import logging
import pickle
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from xai import cli
from xai.app import check
from xai.core.store import Store

RIGHT = re.compile(
    r"must|use |choose|did you mean|known here|give|set |leave|add |needs|expected|there are|belongs to|--help|"
    r"name |make it|train|copy|begin it|refused|is not used|does not exist|there is none|no such|none of the|"
    r"has to be|takes all|list them|lower |instead|Leave"
)
"""Words that say what would be right."""

TYPED = [
    # What is no setting.
    *("=1", "==", "a", "+", "~", "++", "+=1", "~+=1", "'seed 1'", "[1]", "'a b=1'"),
    *("sead=1", "+sead=1", "++sead=1", "~sead", "seed.first=1", "+seed=1", "data.cluter=5", "+model.nothing=1"),
    *("model.towers.widht=8", "model.pretraining.scene.nothing=1", "transfer.lamda2=1", "data@nothing=mnist"),
    *("explainrs.rise.masks=1", "explainers.risee.masks=1", "metric.nothing.masks=1", "supervision.block=1"),
    *("vector=a", "split=test", "refine=3", "image=a.png", "method=classifier", "task=supervise refine=1"),
    "study=salvage vit_shapley.fit.epochs=2",
    "task=explain image=a refinement.steps.x=1",
    # Flags.
    *("--foo", "-x", "--cfg", "--cfg nothing", "--package", "-p model --cfg job", "--resolve", "--config-name nothing"),
    *("--config-dir nowhere", "--config-path nowhere", "--experimental-rerun x", "seed=0 --foo seed=1"),
    # Choices of files.
    *(
        f"{group}={value}"
        for group in ("model", "data", "logger", "trainer")
        for value in ("null", "[1]", "{a:1}", "''")
    ),
    *(f"{group}={value}" for group in ("task", "study", "method") for value in ("null", "[a,b]", "1", "''")),
    *("experiment=[1]", "experiment=''", "explainer=null task=explain image=a", "data@source=null"),
    *("model=clip_tinny", "data=mnist_scatterd", "data@source=digit_scattered", "logger=wandbb", "trainer=tpu"),
    *("task=supervice", "study=salvge", "task=train method=clasifier", "experiment=smok", "explainer=grad_cm"),
    *("hydra/launcher=nothing", "hydra/sweeper=nothing", "hydra/job_logging=nothing", "model=a/b", "model=../model"),
    *("task=explain image=a explainer=grad_cm", "task=supervise supervision=kernel_shop", "task=train method=transfer"),
    # References, sweeps and jobs of which one cannot be.
    *("seed=${nothing}", "seed=${", "seed=${nothing:1}", "seed=${oc.env:NOTHING}"),
    *("transfer.bound_fit.epochs=2", "task=supervise transfer.bound_fit.epochs=2"),
    *("seed=1,2", "seed=range(1,3)", "seed=choice(1,2)", "seed=glob(*)", "model=glob(*)", "seed=interval(0,1)"),
    *("-m seed=0,x", "-m seed=x,0", "-m seed=range(0,0)", "-m seed=range(0,1e12)", "-m seed=interval(0,1)"),
    *("-m model=clip_tinny", "-m experiment=smoke,smok", "-m transfer.lambda2=0.4,high", "seed=0 -m seed=-1,1"),
    *("-m seed=0,1 model.patch_size=7,0", "-m study=salvage lengths=[0.5],[2.0]", "-m sead=0,1"),
    # Names that leave.
    *(f"name={name}" for name in ("''", "..", "a/../../..", "store", "/tmp/x", ".", "./x", "a//b", "null", "[1]")),
    *("store=''", "store=null", "hydra.run.dir=null", "hydra.job.chdir=x", "hydra.mode=x", "hydra.nothing=1"),
    *("+hydra.callbacks.x._target_=sympy.sympify", "hydra.job_logging.handlers.console.class=subprocess.Popen"),
    # Sizes that no memory holds.
    *("data.canvas=100000", "model.pretraining.scene.canvas=100000", "model.image_size=70000"),
    *(f"case.block={10**21}", f"task=supervise block={10**21}", "seed=99999999999999999999", "pictures=1e99"),
    *("study=ranking path_steps=[1000000]", "study=ranking explainers.ranking.decoder.resize=[1000000]"),
    *("data=folder data.root=. data.size=100000", "study=salvage model.tower.width=1000000000"),
    *("study=salvage model.tower.depth=10000000", "model.towers.layers=10000000", "trainer.threads=100000000000"),
    # Values that do not fit each other, known before any training.
    *("model.patch_size=0", "model.patch_size=-7", "model.patch_size=5", "model.patch_size=1000000"),
    *("model.patch_size=42", "study=salvage model.tower.heads=3", "data.object_size=40", "data.cells=40"),
    *("transfer.lambda2_grid=[0.5,0.5]", "transfer.lambda2_grid=[]", "transfer.lambda2_grid=[0.5000001,0.5000002]"),
    *("transfer.lambda2_grid=0.4", "transfer.lambda2_grid=[0.4,high]", "transfer.lambda2=[0.4", "transfer.lambda2=nan"),
    *("transfer.alpha_grid=[0.6,0.6]", "transfer.alpha_grid=[1]", "transfer.alpha_grid=[]", "transfer.alpha_grid=null"),
    *(f"+transfer.{fit}.keep=best" for fit in ("source_fit", "target_fit")),
    "study=ranking ++explainers.ranking.fit.keep=best",
    *(f"study=ranking explainers.ranking.levels={levels}" for levels in ("[9]", "[]", "[0,0]", "[-1]", "x", "null")),
    *("study=ranking explainers.ranking.decoder.resize=[1,2]", "study=ranking explainers.ranking.decoder.scale=nan"),
    *("study=ranking explainers.ranking.decoder.scale=0", "study=ranking explainers.ranking.decoder.pixels=0"),
    *("study=ranking path_steps=[2]", "study=ranking path_steps=[8,8]", "study=ranking case.targets=label"),
    *("study=salvage lengths=[0.5,0.5]", "study=salvage lengths=[0.3]", "study=salvage lengths=[2.0]"),
    *(
        "study=salvage rows=[]",
        "study=salvage rows=[rise,rise]",
        "study=salvage rows=[riise]",
        "study=salvage rows=rise",
    ),
    *("study=salvage metrics=[]", "study=salvage metrics=[removal,removal]", "study=salvage metrics=[remove]"),
    *(f"study=salvage {what}=[nothing]" for what in ("tables", "claims", "figures")),
    *("study=salvage figures=[1]", "study=salvage 'figures=[{}]'", "study=salvage 'figures=[{figure: nothing}]'"),
    *("study=salvage tables=[salvage,salvage]", "study=salvage explainers.salvage.share=0.3"),
    *(
        "study=salvage model.binary=true",
        "study=salvage model=clip_tiny",
        "model=vit_tiny",
        "task=train model=clip_tiny",
    ),
    *("study=salvage probe_images=3", "study=salvage probe=5", "study=salvage explainers.salvage.masks=7"),
    *("case.images=100000", "transfer.source_images=100000", "transfer.validation_images=100000"),
    *("plugins=[nothing]", "plugins=nothing", "plugins=[1]", "plugins=null"),
    *(
        "explainers=[1]",
        "explainers.rise=3",
        "explainers.rise.masks=null study=salvage",
        "metric=[1]",
        "metric.removal=3",
    ),
    # Files.
    *(f"study=salvage checkpoint={path}" for path in ("nowhere", ".", "binary", "empty", "/dev/null", "[a]", "1")),
    *(
        f"task=explain image={path} model=efficientnet_lite0"
        for path in ("nowhere", ".", "binary", "empty", "null", "[1]")
    ),
    *(
        f"task=apply_vector checkpoint=binary vector={path}"
        for path in ("nowhere", ".", "binary", "empty", "null", "[1]")
    ),
    *(f"task=supervise checkpoint={path}" for path in ("nowhere", ".", "binary", "empty")),
    *(f"model=clip_vit_b32 model.weights={path}" for path in ("nowhere", ".", "[1]")),
    *(f"data=folder data.root={path}" for path in ("nowhere", ".", "binary", "null", "[1]")),
    *(f"data={name} data.root=nowhere" for name in ("cars", "imagenet", "pet", "wbc", "mura", "dtd", "sun397")),
    *("data=folder", "data=cars data.root=.", "task=compare data=pictures data.path=nowhere model=efficientnet_lite0"),
    *("task=compare", "task=compare rank_by=nothing model=efficientnet_lite0", "task=apply_vector vector=v"),
    *("task=explain image=a", "task=apply_vector checkpoint=c", "task=explain image=a refine=x"),
    *("checkpoint=a", "classifier.checkpoint=a", "task=supervise images=1000000", "task=supervise split=training"),
    *("model=cnn_tiny study=ranking model.architecture=nothing", "model=cnn_tiny study=ranking model.output_stride=3"),
    *(f"--config-dir own experiment={name}" for name in ("tab", "twice", "latin", "number", "bare", "list", "code")),
]
"""Commands; each has to be refused with a word of its last argument that is wrong."""

OWN = {
    "tab": b"# @package _global_\n\tseed: 1\n",
    "twice": b"# @package _global_\nseed: 1\nseed: 2\n",
    "latin": b"# @package _global_\nname: caf\xe9\n",
    "number": b"# @package _global_\ndefaults: 5\n",
    "bare": b"seed: 1\n",
    "list": b"# @package _global_\n[1, 2]\n",
    "code": b"# @package _global_\nhydra: {callbacks: {x: {_target_: sympy.sympify}}}\n",
}
"""Experiments of a user's own that cannot be read."""


@pytest.fixture(scope="module", autouse=True)
def _files_are_read_once() -> Iterator[None]:
    """Composing reads some forty files for each command; those of the framework do not change meanwhile."""
    read, kept = FileConfigSource.load_config, {}

    def load(self: Any, config_path: str) -> Any:
        if Path(self.path) != cli.CONF:
            return read(self, config_path)
        if config_path not in kept:
            kept[config_path] = pickle.dumps(read(self, config_path))
        return pickle.loads(kept[config_path])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileConfigSource, "load_config", load)
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where commands are typed; it fails what would begin to work."""

    def begin(*_: Any, **__: Any) -> None:
        raise AssertionError("work has begun")

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    for name, content in OWN.items():
        (tmp_path / "own" / "experiment" / f"{name}.yaml").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(Store, "get", begin)
    yield tmp_path
    root.handlers[:], root.level = handlers, level
    torch.use_deterministic_algorithms(False)


def check_line(status: int, err: str, typed: str, folder: Path) -> None:
    assert status not in (0, None), typed
    assert err.startswith("error: "), (typed, err)
    assert err.endswith("\n"), (typed, err)
    assert err.count("\n") == 1, (typed, err)
    assert "Traceback" not in err
    assert any(word in err for word in words(typed)), (typed, err)
    assert RIGHT.search(err), (typed, err)
    assert {path.name for path in folder.iterdir()} == {"binary", "empty", "own"}, typed


def words(typed: str) -> set[str]:
    """What may be named: the pieces of what was typed, as it was typed."""
    found = set()
    for argument in shlex.split(typed):
        key, equals, value = argument.partition("=")
        pieces = [*key.lstrip("+~").split("."), key.lstrip("+~"), *re.split(r"[\[\],(){}:]", value)]
        found |= {piece for piece in (argument, *pieces) if piece} if equals else {argument.lstrip("~+") or argument}
    return found


@pytest.mark.parametrize("typed", TYPED)
def test_a_bad_command(typed: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", *shlex.split(typed)])
    status = cli.main()
    check_line(status, capsys.readouterr().err, typed, folder)


PROCESSES = [typed for typed in TYPED if typed in ("=1", "==", "--foo", "model=null", "model=clip_tinny", "name=..")]
PROCESSES += ["store=''", "seed=1,2", "seed=range(0,0)", "experiment=smok", "model=[1]", "seed=${"]


@pytest.mark.parametrize("typed", PROCESSES)
def test_a_bad_command_in_a_process_of_its_own(typed: str, folder: Path) -> None:
    run = "import sys; from xai.cli import main; sys.argv[0] = 'run.py'; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", run, *shlex.split(typed)], capture_output=True, text=True, check=False)
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
def composed(task: str) -> DictConfig:
    with hydra.initialize_config_dir(str(cli.CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(TASKS[task]))


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


def one_line(task: str, typed: str, capsys: Any) -> tuple[int, str]:
    """What `cli.main` does after it has composed what does not change."""

    def job() -> None:
        config = composed(task).copy()
        given = OverridesParser.create().parse_overrides(cli.overrides([typed]))
        ConfigLoaderImpl._apply_overrides_to_config(given, config)
        check(config, [*TASKS[task], typed.partition("=")[0]])

    return cli.report_errors(job), capsys.readouterr().err


def test_every_setting_of_every_task(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    seen: set[str] = set()
    may_be_null = []
    for task in TASKS:
        monkeypatch.setattr(sys, "argv", ["run.py", *TASKS[task]])
        for typed in wrong(task):
            if typed in seen:
                continue
            seen.add(typed)
            status, err = one_line(task, typed, capsys)
            if status == 0 and typed.endswith("=null"):
                may_be_null.append(typed)
                continue
            check_line(status, err, typed, folder)
    assert len(seen) - len(may_be_null) + len(TYPED) > 600
