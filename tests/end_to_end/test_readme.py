import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from xai import cli
from xai.explainers.rows import load_row

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))


def commands(page: Path) -> Iterator[list[str]]:
    """The overrides of every command that a page shows in a block of its own; of a sweep, its first job."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for block in (content for language, content in blocks if not language):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("python run.py"):
                words = [word for word in shlex.split(line, comments=True)[2:] if word != "..."]
                overrides = [word for word in words if not word.startswith("-")]
                yield [each.split(",")[0] for each in overrides] if "-m" in words else overrides


def test_commands_are_found_also_behind_a_block_of_code() -> None:
    assert len(list(commands(README))) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_compose(page: Path) -> None:
    written: dict[str, str] = {}
    with hydra.initialize_config_dir(str(cli.CONF), version_base="1.3"):
        for overrides in commands(page):
            composed = hydra.compose("config", overrides=cli.overrides(overrides))
            config = OmegaConf.to_container(composed)
            assert isinstance(config, dict)
            # Who types all of them loses nothing: a run takes the place of the last one of its name.
            assert written.setdefault(composed.name, config["task"]) == config["task"], overrides
            for row in {each.split(".")[1] for each in overrides if each.startswith("explainers.")}:
                load_row(row, config["explainers"])
            assert "task=train" in overrides or not any(each.startswith("method=") for each in overrides), overrides
