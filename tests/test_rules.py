"""Rules that no linter has: files stay short, nothing names one machine, `make` lists itself, no test is on the net."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "xai").rglob("*.py"))


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
        folders = ("xai", "tests", "conf", "sweeps", "docs", "benchmarks", ".ci")
        paths = [p for folder in folders for p in (ROOT / folder).rglob("*")] + list(ROOT.glob("*"))
    return [p for p in paths if p.is_file() and "__pycache__" not in p.parts and p.name != "LICENSE"]


def test_files_stay_short() -> None:
    long = {p.name: n for p in MODULES if (n := len(p.read_text(encoding="utf-8").splitlines())) >= 400}
    assert long == {}, "a file of 400 lines has two subjects"


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


def test_make_plans_tables_where_it_is_asked_to() -> None:
    if not shutil.which("make"):
        pytest.skip("no make on this machine")

    # What `make test ARGS=... SCALE=...` was itself called with is none of theirs.
    heard = {"ARGS", "SCALE", "LAUNCHER", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL"}
    env = {name: value for name, value in os.environ.items() if name not in heard}

    def said(*typed: str) -> list[str]:
        ran = subprocess.run(["make", "-n", *typed], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        return [line for line in ran.stdout.splitlines() if "run.py" in line]

    (all_of_them,) = said("tables", "SCALE=paper", "ARGS=task=plan rate=3000")
    assert all_of_them.startswith(".venv/bin/python run.py task=plan 'sweeps=[vectors_table1_paper,")
    assert all_of_them.endswith("_paper]' rate=3000")
    assert len(set(re.findall(r"\w+_paper", all_of_them))) == 15
    (one,) = said("rank-table", "SCALE=paper", "ARGS=task=plan")
    assert one == ".venv/bin/python run.py sweep=ranking_table_paper task=plan"
    (pictures,) = said("salvage-pictures", "SCALE=paper")
    assert pictures.split() == [".venv/bin/python", "run.py", "experiment=salvage_pictures_paper"]
    (whole,) = said("tables", "LAUNCHER=")
    assert "run.py -m sweep=vectors_table1,vectors_table2,vectors_figure2," in whole
    assert "run.py experiment=salvage_pictures logger=none" in whole
    # Without a GPU a job a core, unless another launcher is typed, or what runs is of the papers' size.
    given = "LAUNCHER=launcher=processes hydra.launcher.jobs=2"
    (two,) = said("tables", given)
    assert "run.py -m launcher=processes hydra.launcher.jobs=2 sweep=vectors_table1,vectors_table2," in two
    for typed in ("ARGS=launcher=basic", "SCALE=paper", "ARGS=task=plan"):
        (line,) = said("rank-table", given, typed)
        assert "processes" not in line


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
