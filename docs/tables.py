"""Fill the tables of README.md and docs/*.md with what sweeps measured: `make docs-tables`, or last of `make tables`.

    python -m docs.tables               # of all sweeps in outputs/
    python -m docs.tables SWEEP ...     # of these

A sweep leaves its results in outputs/<sweep>/results. They are copied to docs/results/<sweep>, where they are kept, and
every block of Markdown that shows them is written anew; and docs/results.md, what each claim of the papers comes to. A
figure that docs/images has is taken with the results of the sweep at embedded scale that draws it: those at the scale
of a paper, and folders with a name of their own, have figures of the same names.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from docs.blocks import filled
from docs.papers import page, read_papers
from xai.cli import report_errors
from xai.core.composing import CONF

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"


def take(outputs: Path, sweeps: Sequence[str] = ()) -> None:
    """Copy the results of sweeps, or of some of them, neither older nor of fewer runs than what is kept."""
    for found in sorted(outputs.glob("*/results/about.yaml")):
        kept = RESULTS / found.parents[1].name
        if sweeps and kept.name not in sweeps:
            continue
        new = yaml.safe_load(found.read_text())
        old = yaml.safe_load((kept / found.name).read_text()) if (kept / found.name).is_file() else {}
        if old and (new["runs"] < old["runs"] or not set(old["seeds"]) <= set(new["seeds"])):
            left, whole = os.path.relpath(found.parent), os.path.relpath(kept)
            print(f"left {left}, {_extent(new)}: {whole} has {_extent(old)} (remove it to have fewer)")
        elif new["date"] >= old.get("date", ""):
            shutil.copytree(found.parent, kept, dirs_exist_ok=True)
            own = not kept.name.endswith("_paper") and (CONF / "sweep" / f"{kept.name}.yaml").is_file()
            if own:
                _take_figures(sorted(found.parents[1].glob("figures/*.png")))
            print(f"took {os.path.relpath(found.parent)}")


def _take_figures(drawn: Sequence[Path]) -> None:
    """Copy the figures that docs/images has, and name those of an earlier draw that have another name now."""
    # A figure is FIGURE.png, or FIGURE-DATA.png where a sweep has several sets.
    names: dict[str, dict[str, Path]] = {}
    for path in drawn:
        names.setdefault(path.stem.partition("-")[0], {})[path.name] = path
    for shown in sorted(RESULTS.with_name("images").glob("*.png")):
        now = names.get(shown.stem.partition("-")[0], {})
        if shown.name in now:
            shutil.copyfile(now[shown.name], shown)
        elif now:
            print(f"{os.path.relpath(shown)} is of an earlier draw: the figure is {', '.join(now)} now")


def _extent(about: Mapping[str, Any]) -> str:
    seeds = about["seeds"]
    return (
        f"{about['runs']} run{'s' * (about['runs'] != 1)} of seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"
    )


def documents() -> list[Path]:
    """Where blocks of results may be."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(sweeps: Sequence[str] = ()) -> None:
    """Take what there is in outputs/, or of it the sweeps that are named, and fill every document."""
    take(ROOT / "outputs", sweeps)
    claimed = ROOT / "docs" / "results.md"
    papers = claimed.with_name("papers.yaml")
    made = {claimed: page(read_papers(papers), RESULTS)} if papers.is_file() else {}
    for path in [*documents(), *made]:
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        after = made.get(path) or filled(before, RESULTS)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"filled {os.path.relpath(path)}")


if __name__ == "__main__":
    sys.exit(report_errors(lambda: main(sys.argv[1:])))
