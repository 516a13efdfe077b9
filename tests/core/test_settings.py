import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from tests import toolbox
from xai.core.errors import UserError
from xai.core.settings import Count, FieldError, Share, build, settings, unknown


@settings
class Inner:
    rate: Annotated[float, Field(ge=0)]
    kind: Literal["plain", "odd"] = "plain"
    heads: int = 1
    width: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise FieldError("width", f"must be a multiple of heads={self.heads}")


@settings
class Other:
    rate: float
    depth: Count


@settings
class Outer:
    name: str
    count: int
    share: Share = 0.5
    flag: bool = False
    limit: Count | None = None
    either: int | str = 0
    grid: tuple[Share, ...] = ()
    words: Annotated[list[str], Field(max_length=3)] = dataclasses.field(default_factory=list)
    inner: Inner | None = None
    parts: tuple[Inner, ...] = ()
    family: Inner | Other | None = None
    free: Any = None


@dataclasses.dataclass(frozen=True)
class Plain:
    rate: float
    inner: Inner | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise UserError("no rate")


NEEDED = {"name": "x", "count": 3}


def refusal(values: Any, where: str = "") -> str:
    return toolbox.refusal(build, Outer, values, where)


def test_every_kind_of_value_arrives_with_its_type() -> None:
    made = build(
        Outer,
        {
            **NEEDED,
            "share": 1,
            "flag": True,
            "limit": 7,
            "either": "many",
            "grid": [1, 0.1],
            "words": ("a", "b"),
            "inner": {"rate": 2},
            "parts": [{"rate": 0.5}, {"rate": 1, "kind": "odd"}],
            "family": {"rate": 1, "depth": 3},
            "free": {"anything": [None, 1, 1.5]},
        },
    )
    parts, free = (Inner(0.5), Inner(1.0, "odd")), {"anything": [None, 1, 1.5]}
    assert made == Outer("x", 3, 1.0, True, 7, "many", (1.0, 0.1), ["a", "b"], Inner(2.0), parts, Other(1.0, 3), free)
    assert type(made.share) is type(made.grid[0]) is type(made.parts[1].rate) is float
    assert type(dataclasses.asdict(made)["free"]["anything"][1]) is int
    assert list(dataclasses.asdict(made)) == [field.name for field in dataclasses.fields(Outer)]


def test_defaults_and_null_where_null_is_allowed() -> None:
    assert build(Outer, NEEDED) == Outer("x", 3)
    assert build(Outer, {**NEEDED, "limit": None, "inner": None, "free": None}) == Outer("x", 3)


UNTYPED: list[tuple[Any, str, str]] = [
    ({"name": "\udcff"}, "m", "Unicode"),
    ({"free": object()}, "m", "text, numbers, lists and groups"),
    ({"limit": "x" * 500}, "m.limit=xxx", "..."),
]


@pytest.mark.parametrize(("given", "path", "right"), [*toolbox.cases(__file__, "refused.txt"), *UNTYPED])
def test_what_does_not_fit_is_said_with_the_path_that_was_typed(given: Any, path: str, right: str) -> None:
    text = refusal({**NEEDED, **given}, "m")
    assert text.startswith(path)
    assert right in text.removeprefix(path)
    assert len(text) < 200


def test_a_dictionary_has_names_as_keys_and_values_of_one_kind() -> None:
    @dataclass
    class Named:
        digits: dict[str, int]

    assert build(Named, {"digits": {"srg": 1}}).digits == {"srg": 1}
    told = toolbox.refusal(build, Named, {"digits": {"srg": 1.5}}, "a")
    assert told.startswith("a.digits.srg=1.5 must be a whole number")
    assert "digits=3 must be a group of settings" in toolbox.refusal(build, Named, {"digits": 3})


def test_a_misspelt_key_is_named_before_the_key_that_is_missing_for_it() -> None:
    assert "did you mean count?" in refusal({"name": "x", "cuont": 3}, "model")
    assert refusal({"name": "x"}).startswith("count is not set")


@pytest.mark.parametrize("values", [[1], "text", None])
def test_what_is_no_group_is_refused(values: Any) -> None:
    assert "must be a group of settings" in refusal(values)


def test_settings_made_in_python_are_checked_too() -> None:
    for make in (
        lambda: Inner(-1.0),
        lambda: dataclasses.replace(Inner(1.0), rate=-1.0),
        lambda: Outer("x", 3, inner=Inner(rate=-1.0)),
    ):
        assert toolbox.refusal(make) == "rate=-1.0 must be at least 0"
    assert toolbox.refusal(Inner, 1.0, "odd", 2, 5) == "width=5 must be a multiple of heads=2"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inner(1.0).rate = 2.0  # type: ignore[misc]


def test_a_dataclass_of_the_standard_library_is_built_as_strictly() -> None:
    assert build(Plain, {"rate": 1, "inner": {"rate": 2}}) == Plain(1.0, Inner(2.0))
    for values, message in (
        ({"rate": math.nan}, "p.rate=nan"),
        ({"rate": "1"}, "p.rate=1 must be a number"),
        ({"rates": 1}, "p.rates is not a known setting: did you mean rate?"),
        ({"rate": 1, "inner": {"rate": -2}}, "p.inner.rate=-2 must be at least 0"),
        ({"rate": -1}, "no rate"),
    ):
        assert message in toolbox.refusal(build, Plain, values, "p")


def test_a_name_among_none_prints_no_empty_list() -> None:
    assert unknown("data.x", "x", []) == "data.x is not a known setting: there is none here, leave it out"
