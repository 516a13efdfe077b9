"""Several processes at one study, and kills at any moment: the same bytes, and nothing computed twice."""

import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.study.engine import lines, register, stored, study, workers
from xai.study.study import Study

FORK = multiprocessing.get_context("fork")
ROWS = ["noted", "noted_too"]
PATIENCE = 60.0


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register(monkeypatch, tmp_path / "journal")
    return tmp_path / "journal"


def opened(folder: Path, pause: float = 0.0) -> Study:
    return study(folder, ROWS, ["peak"], block=1, changes={name: {"pause": pause} for name in ROWS})


def alone(folder: Path, journal: Path) -> tuple[dict[str, bytes], list[str]]:
    """What a store holds after one undisturbed process, and the blocks it computed."""
    opened(folder).run()
    blocks = lines(journal)
    journal.write_text("")
    return stored(folder), blocks


def test_processes_that_run_one_study_share_its_blocks(tmp_path: Path, journal: Path) -> None:
    expected, blocks = alone(tmp_path / "alone", journal)
    # Two rows, nine blocks, maps and scores; the scores of both rows look alike in the journal.
    assert len(blocks) == 4 * 9
    frames = opened(tmp_path / "alone").run()

    def contribute() -> None:
        assert opened(tmp_path / "shared", pause=0.05).run().scores.equals(frames.scores)

    processes = [FORK.Process(target=contribute) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0, 0]
    assert Counter(lines(journal)) == Counter(blocks)
    assert stored(tmp_path / "shared") == expected
    # Both have worked: neither has waited for the other to end.
    who = Counter(lines(workers(journal)))
    assert all(who[str(process.pid)] > 2 for process in processes)


def test_killed_at_twenty_random_moments_it_ends_with_the_same_bytes(tmp_path: Path, journal: Path) -> None:
    expected, blocks = alone(tmp_path / "alone", journal)
    generator, studies, left = random.Random(0), 0, 20
    while left:
        # A study is killed until it gets to its end between two kills; then another one is begun.
        folder, kills = tmp_path / f"killed-{studies}", 0
        while left and killed(folder, journal, generator):
            kills, left = kills + 1, left - 1
            whole = {name: content for name, content in stored(folder).items() if ".partial" not in name}
            assert whole.items() <= expected.items()
        opened(folder).run()
        assert stored(folder) == expected
        # A kill costs the block that was being computed, and no other.
        assert len(blocks) <= len(lines(journal)) <= len(blocks) + kills
        assert set(lines(journal)) == set(blocks)
        journal.write_text("")
        studies += 1
    assert studies < 10, "hardly any kill fell into the work"


def killed(folder: Path, journal: Path, generator: random.Random) -> bool:
    """Have a process run a study, and kill it at a random moment; whether it had not come to its end."""
    process = FORK.Process(target=lambda: opened(folder, pause=0.01).run())
    wanted, limit = len(lines(journal)) + generator.randrange(3), time.monotonic() + PATIENCE
    process.start()
    while len(lines(journal)) < wanted and process.is_alive():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.001)
    time.sleep(generator.uniform(0, 0.02))
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def test_a_study_whose_artifacts_are_all_there_needs_no_write_access(journal: Path) -> None:
    # Not tmp_path: an ordinary user, which root becomes here, could not even reach it.
    with tempfile.TemporaryDirectory() as place:
        before = os.umask(0o022)
        try:
            expected = opened(Path(place)).run()
        finally:
            os.umask(before)
        folders = [Path(place), *(path for path in Path(place).rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)

        def read() -> None:
            if os.getuid() == 0:
                os.setuid(65534)
            with pytest.raises(PermissionError):
                (Path(place) / "store" / "mine").touch()
            assert opened(Path(place)).run().scores.equals(expected.scores)

        reader = FORK.Process(target=read)
        reader.start()
        reader.join(PATIENCE)
        for folder in folders:
            folder.chmod(0o755)
        assert reader.exitcode == 0
