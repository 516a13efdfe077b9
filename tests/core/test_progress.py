"""What a job says where there is no terminal."""

import io

import pytest
from rich.console import Console

from xai.core import progress


@pytest.mark.parametrize(("before", "total", "left"), [(0, 10, (5, 4)), (900, 1000, (65, 64))])
def test_a_line_a_minute_with_the_time_left_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, before: int, total: int, left: tuple[int, int]
) -> None:
    now, said = [0.0], io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=said, width=200))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with progress.bar("maps", total, "blocks") as count:
        for done in range(before + 1, before + 11):
            now[0] += 40
            count(done)
    lines = said.getvalue().splitlines()
    # Every 80 s, which is the first time that a minute has passed since the line before.
    assert [line.strip() for line in lines[:2]] == [
        f"maps: {before + 2} of {total} blocks, {left[0]} min left",
        f"maps: {before + 4} of {total} blocks, {left[1]} min left",
    ]
    assert len(lines) == 6
    assert lines[-1].strip() == f"made maps ({total} blocks, 400 s)"
