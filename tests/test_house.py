"""The rules of the house that a machine can check: layers, sizes, docstrings, safety, packaging, the Makefile."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "xai").rglob("*.py"))

# Who stands above whom. Rooms of one number do not import each other.
LAYERS = {
    "core": 0,
    "data": 1,
    "models": 2,
    "games": 3,
    "vectors": 3,
    "sampling": 3,
    "metrics": 4,
    "shapley": 4,
    "ranking": 4,
    "methods": 5,
    "explainers": 6,
    "study": 7,
    "classifiers": 8,
    "papers": 9,
    "tasks": 11,
    "stages": 9,
    "report": 10,
    "reports": 10,
    "settings": 10,
    "app": 12,
    "cli": 13,
    "sweep": 14,
}
LEAVES = {"results"}


def name_of(path: Path) -> str:
    """Dotted name of a module, a package by the name of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Absolute dotted names of all that is imported anywhere in a module, relative imports resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, base]) if base else ".".join(package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def layer_fault(module: str, imported: str) -> str | None:
    """What is wrong with `module` importing `imported`, or None."""
    here, there = module.split("."), imported.split(".")
    if there[0] != "xai" or len(there) < 2:
        return None
    if len(here) < 2:
        return f"{module} imports {imported}: the package itself imports none of its rooms"
    room, other = here[1], there[1]
    if other not in LAYERS and other not in LEAVES:
        return None if other.startswith("__") else f"{module} imports {imported}: no layer is named for xai.{other}"
    if room == other or other in LEAVES:
        return None
    if room in LEAVES:
        return None if other == "core" else f"{module} imports {imported}: a leaf imports the core only"
    if room not in LAYERS:
        return f"no layer is named for {module}"
    if LAYERS[other] >= LAYERS[room] and {room, other} != {"papers", "stages"}:
        return f"{module} (layer {LAYERS[room]}) imports {imported} (layer {LAYERS[other]})"
    return None


def unsafe_calls(source: str) -> list[str]:
    """Calls and imports that could run code out of a file, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [
                f"{node.lineno}: import {m}"
                for m in modules
                if m.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
            ]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called in {"eval", "exec", "compile", "__import__"}:
            found.append(f"{node.lineno}: {called}")
        if called == "torch.load" and keywords.get("weights_only") != "True":
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        if called.endswith(".load_from_checkpoint") and keywords.get("weights_only") != "True":
            found.append(f"{node.lineno}: load_from_checkpoint without weights_only=True")
        if called in {"np.load", "numpy.load"} and keywords.get("allow_pickle", "False") != "False":
            found.append(f"{node.lineno}: {called} with allow_pickle")
        if called in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}:
            found.append(f"{node.lineno}: {called} instead of yaml.safe_load")
    return found


def undocumented(source: str) -> list[str]:
    """Public module, classes and functions without a docstring."""

    def walk(node: ast.AST, prefix: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if child.name.startswith("_"):
                continue
            decorators = {ast.unparse(d) for d in child.decorator_list}
            if not ast.get_docstring(child) and not decorators & {"overload", "typing.overload", "override"}:
                yield prefix + child.name
            if isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")

    tree = ast.parse(source)
    return ([] if ast.get_docstring(tree) else ["<module>"]) + list(walk(tree, ""))


def tied(line: str) -> bool:
    """Whether a line names a place on one machine, or a package registry of one's own."""
    place = r"(?<![\w.~$)}/-])/(?:home/\w|Users/\w|(?:root|work|opt|mnt|scratch)\b)"
    registry = r"https?://\S*/simple(?:/|\s|$)|files\.python" r"hosted\.org|-(?:-extra)?-index-url"
    return bool(re.search(f"{place}|{registry}", line))


def tracked_files() -> list[Path]:
    """Text files git tracks or would track; all but the ignored when there is no git."""
    listed = None
    if shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed is not None and listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        rooms = ("xai", "tests", "conf", "sweeps", "docs", "benchmarks", ".ci")
        paths = [p for room in rooms for p in (ROOT / room).rglob("*")] + list(ROOT.glob("*"))
    return [p for p in paths if p.is_file() and "__pycache__" not in p.parts and p.name != "LICENSE"]


def test_layers_hold() -> None:
    faults = []
    for path in MODULES:
        module = name_of(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        faults += [layer_fault(module, imported) for imported in imports_of(tree, module, path.stem == "__init__")]
    assert [fault for fault in faults if fault] == []


def test_every_room_has_a_layer() -> None:
    rooms = {p.stem for p in (ROOT / "xai").iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))}
    assert sorted(rooms - set(LAYERS) - LEAVES - {"__init__"}) == []


@pytest.mark.parametrize(
    ("module", "imported", "allowed"),
    [
        ("xai.reports.tables", "xai.metrics.significance", True),
        ("xai.metrics.significance", "xai.reports.tables", False),
        ("xai.data.registry", "xai.models.clip", False),
        ("xai.models.clip", "xai.data.registry", True),
        ("xai.methods.transfer", "xai.explainers.registry", False),
        ("xai.metrics.maps", "xai.shapley.exact", False),
        ("xai.data.registry", "xai.data.glyphs", True),
        ("xai.vectors", "xai.core.errors.UserError", True),
        ("xai.vectors", "xai.models.clip", True),
        ("xai.models.clip", "xai.cellar.wine", False),
        ("xai", "xai.stages", False),
        ("xai.stages", "xai.__version__", True),
        ("xai.data.registry", "torch", True),
    ],
)
def test_layer_rule_itself(module: str, imported: str, allowed: bool) -> None:
    assert (layer_fault(module, imported) is None) == allowed


def test_imports_are_found_wherever_they_hide() -> None:
    source = "from . import glyphs\nfrom ..models import clip\ndef f():\n    import xai.stages\n"
    found = set(imports_of(ast.parse(source), "xai.data.registry", False))
    assert found == {"xai.data.glyphs", "xai.models.clip", "xai.stages"}
    assert set(imports_of(ast.parse("from .a import b"), "xai.data", True)) == {"xai.data.a.b"}


def test_files_stay_short() -> None:
    long = {name_of(p): n for p in MODULES if (n := len(p.read_text(encoding="utf-8").splitlines())) >= 400}
    assert long == {}, "a file of 400 lines has two subjects"


def test_public_names_have_docstrings() -> None:
    bare = {name_of(p): names for p in MODULES if (names := undocumented(p.read_text(encoding="utf-8")))}
    assert bare == {}


def test_docstring_rule_itself() -> None:
    source = '"""M."""\nclass A:\n    """A."""\n    def f(self): ...\n    def _g(self): ...\n    def __len__(self): 1\n'
    assert undocumented(source) == ["A.f"]
    assert undocumented("def f(): ...") == ["<module>", "f"]


def test_nothing_can_run_code_out_of_a_file() -> None:
    unsafe = {name_of(p): calls for p in MODULES if (calls := unsafe_calls(p.read_text(encoding="utf-8")))}
    assert unsafe == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval('1')",
        "Model.load_from_checkpoint(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader)",
    ],
)
def test_safety_rule_itself(source: str) -> None:
    assert unsafe_calls(source)
    assert not unsafe_calls("torch.load(path, weights_only=True)\nmodel.eval()\nnp.load(path)\nyaml.safe_load(text)")


def test_configuration_parses() -> None:
    files = [p for folder in ("conf", "sweeps") for p in sorted((ROOT / folder).rglob("*.y*ml"))]
    assert files, "conf/ holds no configuration"
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict | None), path.relative_to(ROOT)


def test_no_place_or_registry_of_one_machine() -> None:
    faults = []
    for path in tracked_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        faults += [
            f"{path.relative_to(ROOT)}:{n}: {line.strip()[:80]}" for n, line in enumerate(lines, 1) if tied(line)
        ]
    assert faults == []


def test_place_rule_itself() -> None:
    slash = "/"  # apart from the rest, so that this file does not hold what it forbids
    for place in ("home/ada/x", "root", "Users/Ada", "mnt/disk1"):
        assert tied(f"root: {slash}{place}")
        assert not tied(f"see outputs/{place}, $HOME/{place}, https://example.org/{place}")
    assert tied(f"https://mirror.example.org/simple{slash}")
    assert tied("pip install -" + "-index-url x")
    assert not tied("https://pypi.org/project/xai")


def test_third_party_imports_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", line)[0].lower().replace("-", "_") for line in project["dependencies"]}
    spelt = {"PIL": "pillow", "sklearn": "scikit_learn", "hydra": "hydra_core", "open_clip": "open_clip_torch"}
    spelt["pytorch_grad_cam"] = "grad_cam"
    # Part of what they come with: omegaconf reads through PyYAML, jinja2 escapes through MarkupSafe.
    declared |= {"xai", "yaml", "markupsafe"} | set(sys.stdlib_module_names)
    missing = set()
    for path in MODULES:
        module = name_of(path)
        for imported in imports_of(ast.parse(path.read_text(encoding="utf-8")), module, path.stem == "__init__"):
            root = imported.split(".")[0]
            if spelt.get(root, root).lower() not in declared:
                missing.add(f"{module} imports {root}")
    assert sorted(missing) == []


def test_packages_are_packages() -> None:
    folders = {p.parent for p in MODULES}
    assert sorted(str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()) == []


def test_make_help_lists_every_target() -> None:
    if not shutil.which("make"):
        pytest.skip("no make on this machine")
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", text, flags=re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)[1].split())
    assert {"help", "install", "demo", "test", "lint", "format", "clean", "distclean"} <= targets
    assert phony == targets
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"^  make ([a-z][a-z0-9-]*) +\S", shown, flags=re.MULTILINE)) == targets
    assert "XAI_PYTHON" in shown


def test_the_network_is_out_of_reach() -> None:
    import socket

    with pytest.raises(RuntimeError, match="tried to look up"):
        socket.create_connection(("example.org", 80), timeout=1)
    with socket.socket() as far, pytest.raises(RuntimeError, match="tried to connect"):
        far.connect(("192.0.2.1", 80))
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as near,
    ):
        assert near.getpeername() == server.getsockname()
