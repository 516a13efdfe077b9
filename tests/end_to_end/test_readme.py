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
    for block in re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("python run.py"):
                words = [word for word in shlex.split(line, comments=True)[2:] if word != "..."]
                overrides = [word for word in words if not word.startswith("-")]
                yield [each.split(",")[0] for each in overrides] if "-m" in words else overrides


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_compose(page: Path) -> None:
    with hydra.initialize_config_dir(str(cli.CONF), version_base="1.3"):
        for overrides in commands(page):
            config = OmegaConf.to_container(hydra.compose("config", overrides=cli.overrides(overrides)))
            assert isinstance(config, dict)
            for row in {each.split(".")[1] for each in overrides if each.startswith("explainers.")}:
                load_row(row, config["explainers"])
            assert "task=train" in overrides or not any(each.startswith("method=") for each in overrides), overrides
