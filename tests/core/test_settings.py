import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from xai.core.errors import UserError
from xai.core.settings import build


@dataclass(frozen=True)
class Inner:
    rate: float
    kind: str = "plain"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise UserError(f"rate={self.rate} must be 0 or more")


@dataclass(frozen=True)
class Outer:
    name: str
    count: int
    share: float = 0.5
    flag: bool = False
    limit: int | None = None
    either: int | str = 0
    grid: tuple[float, ...] = ()
    words: list[str] = field(default_factory=list)
    inner: Inner | None = None
    parts: tuple[Inner, ...] = ()
    free: Any = None


NEEDED = {"name": "x", "count": 3}


def refusal(values: Any, where: str = "") -> str:
    with pytest.raises(UserError) as caught:
        build(Outer, values, where)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_of_value_arrives_with_its_type() -> None:
    made = build(
        Outer,
        {
            **NEEDED,
            "share": 1,
            "flag": True,
            "limit": 7,
            "either": "many",
            "grid": [1, 0.5],
            "words": ("a", "b"),
            "inner": {"rate": 2},
            "parts": [{"rate": 0.5}, {"rate": 1, "kind": "odd"}],
            "free": {"anything": [None]},
        },
    )
    parts = (Inner(0.5), Inner(1.0, "odd"))
    expected = Outer("x", 3, 1.0, True, 7, "many", (1.0, 0.5), ["a", "b"], Inner(2.0), parts, {"anything": [None]})
    assert made == expected
    assert type(made.share) is float
    assert [type(value) for value in made.grid] == [float, float]
    assert type(made.words) is list


def test_defaults_and_null_where_null_is_allowed() -> None:
    assert build(Outer, NEEDED) == Outer("x", 3)
    assert build(Outer, {**NEEDED, "limit": None, "inner": None, "free": None}) == Outer("x", 3)
    assert build(Outer, {**NEEDED, "share": math.inf}).share == math.inf


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coutn": 3}, "coutn is not a known setting: did you mean count?"),
        ({"zzz": 3}, "zzz is not a known setting: known here: count, either, flag, free, grid, inner, limit, name"),
        ({"inner": {"rat": 1}}, "inner.rat is not a known setting: did you mean rate?"),
        ({"inner": {}}, "inner.rate is not set: it must be a number"),
        ({"parts": [{"rate": 1}, {"kind": "x"}]}, "parts[1].rate is not set"),
        ({"inner": {"rate": -1}}, "rate=-1.0 must be 0 or more"),
        ({"inner": 4}, "inner must be a group of settings, not 4"),
        ({"count": 2.0}, "count=2.0 must be a whole number"),
        ({"count": "2"}, "count=2 must be a whole number"),
        ({"count": True}, "count=True must be a whole number"),
        ({"count": None}, "count=None must be a whole number"),
        ({"share": True}, "share=True must be a number"),
        ({"share": "0.5"}, "share=0.5 must be a number"),
        ({"share": math.nan}, "share=nan must be a number"),
        ({"flag": 1}, "flag=1 must be a true or false"),
        ({"flag": "true"}, "flag=true must be"),
        ({"name": 5}, "name=5 must be a text"),
        ({"limit": "many"}, "limit=many must be a whole number"),
        ({"limit": False}, "limit=False must be a whole number"),
        ({"either": 1.5}, "either=1.5 must be a whole number"),
        ({"grid": 0.4}, "grid=0.4 must be a list"),
        ({"grid": "0.4"}, "grid=0.4 must be a list"),
        ({"grid": [0.4, "x"]}, "grid[1]=x must be a number"),
        ({"grid": [True]}, "grid[0]=True must be a number"),
        ({"grid": [math.nan]}, "grid[0]=nan must be a number"),
        ({"grid": None}, "grid=None must be a list"),
        ({"words": [1]}, "words[0]=1 must be a text"),
        ({"words": {"a": 1}}, "words={'a': 1} must be a list"),
        ({"limit": "two\nlines"}, "two\\nlines"),
        ({"limit": "x" * 500}, "..."),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(given: dict[str, Any], message: str) -> None:
    text = refusal({**NEEDED, **given})
    assert message in text
    assert len(text) < 200


def test_missing_settings_and_their_place_are_named() -> None:
    assert refusal({"count": 3}) == "name is not set: it must be a text"
    assert refusal({"name": "x", "cuont": 3}, "model") == "model.cuont is not a known setting: did you mean count?"
    assert refusal({"name": "x"}, "model").startswith("model.count is not set")
    assert refusal([1], "model") == "model must be a group of settings, not [1]"
    assert refusal("text") == "configuration must be a group of settings, not text"
    assert "1 is not a known setting" in refusal({1: 2})


def test_a_dictionary_has_names_as_keys_and_values_of_one_kind() -> None:
    @dataclass
    class Named:
        digits: dict[str, int]

    assert build(Named, {"digits": {"srg": 1}}).digits == {"srg": 1}
    with pytest.raises(UserError, match=r"^a\.digits\.srg=1\.5 must be a whole number"):
        build(Named, {"digits": {"srg": 1.5}}, "a")
    with pytest.raises(UserError, match="digits=3 must be a group of settings"):
        build(Named, {"digits": 3})
