"""What a job says where there is no terminal."""

import io

import pytest
from rich.console import Console

from xai.core import progress


def test_a_line_a_minute_with_the_time_left_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=said, width=200))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with progress.bar("maps", 10, "blocks") as count:
        for done in range(1, 11):
            now[0] += 40
            count(done)
    lines = said.getvalue().splitlines()
    # Every 80 s, which is the first time that a minute has passed since the line before.
    assert [line.strip() for line in lines[:2]] == [
        "maps: 2 of 10 blocks, 5 min left",
        "maps: 4 of 10 blocks, 4 min left",
    ]
    assert len(lines) == 6
    assert lines[-1].strip() == "made maps (10 blocks, 400 s)"
