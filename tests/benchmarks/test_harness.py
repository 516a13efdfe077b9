from typing import Any

import pytest
import torch

from benchmarks.harness import Contender, FailedError, Measurement, in_child, measure
from benchmarks.host import Prepare
from benchmarks.setup import Setup
from tests.benchmarks.fakes import Dying, Echo, Fragile


class Scripted:
    """A child whose rounds take the seconds it was given, and who notes what it is asked."""

    def __init__(self, name: str, seconds: list[float], log: list[tuple[str, str]]) -> None:
        self.name, self.seconds, self.log = name, iter(seconds), log

    def ask(self, verb: str, *args: Any) -> Any:
        self.log.append((self.name, verb))
        if verb == "round":
            seconds = next(self.seconds)
            if seconds < 0:
                raise FailedError("gave up")
            return seconds
        return {"prepare": 10, "result": (2048, None), "flops": 5}[verb]

    def close(self) -> None:
        self.log.append((self.name, "close"))


def race(
    times: dict[str, list[float]], rounds: int = 3, limits: dict[str, int] | None = None, setup: Setup | None = None
) -> tuple[list[Measurement], list[tuple[str, str]], list[str]]:
    log: list[tuple[str, str]] = []
    said: list[str] = []
    order = iter(times)

    def start(prepare: Prepare) -> Scripted:
        name = next(order)
        return Scripted(name, times[name], log)

    contenders = [Contender(name, Echo, (limits or {}).get(name)) for name in times]
    (rows,) = measure(contenders, [None], setup or Setup(), [rounds], said.append, start)
    return rows, log, said


def test_a_ratio_is_of_seconds_in_the_same_round() -> None:
    rows, _, _ = race({"floor": [1.0, 10.0, 2.0], "other": [3.0, 10.0, 8.0]})
    assert rows[1].ratios(rows[0]) == [3.0, 1.0, 4.0]
    assert rows[0].ratios(rows[0]) == [1.0, 1.0, 1.0]
    assert rows[1].median == 8.0
    assert (rows[1].images, rows[1].peak, rows[1].flops, rows[1].failure) == (10, 2048, None, None)


def test_rounds_that_only_one_took_part_in_are_not_compared() -> None:
    early, late = Measurement("early", seconds={0: 1.0, 1: 2.0}), Measurement("late", seconds={2: 4.0, 1: 3.0})
    assert late.ratios(early) == [1.5]


def test_all_take_turns_and_who_begins_changes_with_every_round() -> None:
    _, log, _ = race({"a": [1.0] * 3, "b": [1.0] * 3, "c": [1.0] * 3})
    assert "".join(name for name, verb in log if verb == "round") == "abcbcacab"
    assert log[:3] == [("a", "prepare"), ("b", "prepare"), ("c", "prepare")]
    assert {entry for entry in log if entry[1] == "close"} == {("a", "close"), ("b", "close"), ("c", "close")}


def test_a_contender_takes_part_in_no_more_rounds_than_it_is_given() -> None:
    rows, _, _ = race({"floor": [1.0, 2.0, 4.0], "slow": [6.0]}, limits={"slow": 1})
    assert rows[1].seconds == {0: 6.0}
    assert rows[1].ratios(rows[0]) == [6.0]


def test_who_fails_is_left_alone_and_named_once_in_one_line() -> None:
    rows, log, said = race({"floor": [1.0, 2.0, 4.0], "weak": [3.0, -1.0]})
    assert rows[1].failure == "gave up"
    assert [line for line in said if "gave up" in line] == ["weak failed: gave up"]
    assert [verb for name, verb in log if name == "weak"] == ["prepare", "round", "round", "close"]
    assert rows[0].seconds == {0: 1.0, 1: 2.0, 2: 4.0}


def test_operations_are_counted_on_a_card_only() -> None:
    rows, _, _ = race({"floor": [1.0] * 3}, setup=Setup("cuda"))
    assert rows[0].flops == 5


def test_contenders_live_in_processes_of_their_own_from_case_to_case() -> None:
    contenders = [Contender("fragile", Fragile), Contender("dying", Dying)]
    first, second = measure(contenders, [4.0, 5.0], Setup(), [1, 2], lambda line: None)
    assert first[0].failure == "RuntimeError: out of paper"
    assert (second[0].failure, second[0].images, len(second[0].seconds)) == (None, 7, 2)
    torch.testing.assert_close(second[0].answer, torch.tensor([5.0, 2.0]))
    assert [rows[1].failure for rows in (first, second)] == ["its process ended with exit code 3"] * 2


def test_an_error_in_a_child_reaches_the_parent() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        in_child(Setup(), int, "seven")
