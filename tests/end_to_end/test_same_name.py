"""Two jobs of one name at once: each prints its own table, and what stays in the folder is of one of them."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.end_to_end.jobs import Ended, run, start
from tests.end_to_end.runs import Run, link_store


def table(ended: Ended) -> list[str]:
    """The lines of numbers that a job printed, without those that tell the time."""
    return [line for line in ended.out.splitlines() if re.search(r"\d\.\d\d", line) and " s)" not in line]


@pytest.mark.slow
def test_two_jobs_of_one_name_never_mix(smoke: Run, tmp_path: Path) -> None:
    link_store(smoke.store, tmp_path)
    commands = {images: ("experiment=smoke", f"case.images={images}") for images in (20, 30)}
    expected = {images: table(run(tmp_path, *command, "name=alone")) for images, command in commands.items()}
    assert expected[20] != expected[30]
    jobs = {images: start(tmp_path, *command, "name=same") for images, command in commands.items()}
    ended = {images: job.wait() for images, job in jobs.items()}
    for images, each in ended.items():
        assert each.status == 0, each.err
        assert table(each) == expected[images]
    output = tmp_path / "outputs" / "same"
    asked = yaml.safe_load((output / ".hydra" / "overrides.yaml").read_text())
    scores = pd.read_csv(output / "scores.csv").query("split == 'test' and image >= 0")
    assert f"case.images={scores['image'].nunique()}" in asked
