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


@pytest.mark.parametrize(
    ("given", "path", "right"),
    [
        ({"coutn": 3}, "m.coutn", "did you mean count?"),
        ({"zzz": 3}, "m.zzz", "known here: count, either, family"),
        ({1: 2}, "m.1", "known here"),
        ({"inner": {"rat": 1}}, "m.inner.rat", "did you mean rate?"),
        ({"inner": {}}, "m.inner.rate", "not set"),
        ({"parts": [{"rate": 1}, {"heads": 1}]}, "m.parts[1].rate", "not set"),
        ({"inner": 4}, "m.inner=4", "group of settings or null"),
        ({"count": 2.0}, "m.count=2.0", "whole number"),
        ({"count": "2"}, "m.count=2", "whole number"),
        ({"count": True}, "m.count=true", "whole number"),
        ({"count": None}, "m.count=null", "whole number"),
        ({"share": True}, "m.share=true", "number"),
        ({"share": "0.5"}, "m.share=0.5", "number"),
        ({"share": math.nan}, "m.share=nan", "finite number"),
        ({"share": math.inf}, "m.share=inf", "finite number"),
        ({"share": 1.5}, "m.share=1.5", "at most 1"),
        ({"flag": 1}, "m.flag=1", "true or false"),
        ({"name": 5}, "m.name=5", "text"),
        ({"name": "\udcff"}, "m", "Unicode"),
        ({"limit": 0}, "m.limit=0", "at least 1 or null"),
        ({"either": 1.5}, "m.either=1.5", "whole number"),
        ({"grid": 0.4}, "m.grid=0.4", "list"),
        ({"grid": "0.4"}, "m.grid=0.4", "list"),
        ({"grid": [0.4, "x"]}, "m.grid[1]=x", "number"),
        ({"grid": [0.4, -1]}, "m.grid[1]=-1", "at least 0"),
        ({"words": {"a": 1}}, "m.words={'a': 1}", "list"),
        ({"words": ["a"] * 4}, "m.words=", "list 3 or fewer"),
        ({"inner": {"rate": -1}}, "m.inner.rate=-1", "at least 0"),
        ({"inner": {"rate": 1, "kind": "even"}}, "m.inner.kind=even", "plain or odd"),
        ({"inner": {"rate": 1, "heads": 3}}, "m.inner.width=4", "multiple of heads=3"),
        ({"parts": [{"rate": 1, "heads": 3, "width": 5}]}, "m.parts[0].width=5", "multiple of heads=3"),
        ({"family": {"rate": 1, "depth": 0}}, "m.family.depth=0", "at least 1"),
        ({"family": {"rate": 1, "heads": "many"}}, "m.family.heads=many", "whole number"),
        ({"free": object()}, "m", "text, numbers, lists and groups"),
        ({"limit": "two\nlines"}, "m.limit='two\\nlines'", "whole number"),
        ({"limit": "x" * 500}, "m.limit=xxx", "..."),
    ],
)
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
    with pytest.raises(UserError, match=r"^a\.digits\.srg=1\.5 must be a whole number"):
        build(Named, {"digits": {"srg": 1.5}}, "a")
    with pytest.raises(UserError, match="digits=3 must be a group of settings"):
        build(Named, {"digits": 3})


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
        with pytest.raises(UserError, match=r"^rate=-1\.0 must be at least 0$"):
            make()
    with pytest.raises(UserError, match=r"^width=5 .*heads=2"):
        Inner(1.0, "odd", 2, 5)
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
        with pytest.raises(UserError, match=message):
            build(Plain, values, "p")


def test_a_name_among_none_prints_no_empty_list() -> None:
    assert unknown("data.x", "x", []) == "data.x is not a known setting: there is none here, leave it out"
