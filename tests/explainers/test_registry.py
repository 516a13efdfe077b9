from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tests import toolbox
from tests.explainers.context import Context
from tests.explainers.settings import NAMES, OF_CLASSIFIERS, configured, small_clip
from tests.toolbox import there
from xai.core.composing import choices
from xai.core.errors import UserError
from xai.explainers import registry
from xai.explainers.registry import ExplainerParams, Prepared, entry, explainer, names, refusal
from xai.explainers.rows import load_row
from xai.models.maskable import PaintedClassifier, Removal

ROWS = choices("explainer")


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of its own for a test."""
    monkeypatch.setattr(registry, "_ENTRIES", {})
    monkeypatch.setattr(registry, "_filled", True)


def test_a_look_up_fills_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"exact_shapley", "grad_cam", "kernel_shap", "random", "position_prior"} <= set(names())
    used = {load_row(row).entry.name for row in ROWS}
    assert set(NAMES) <= used, "each explainer has a row"


@pytest.mark.parametrize("row", ROWS)
def test_the_rows_that_come_with_the_framework_are_rows(row: str) -> None:
    found = load_row(row)
    assert found.name == row
    assert found.label
    for split in ("train", "validation", "test"):
        assert type(found.params.for_split(split)) is type(found.params)


@pytest.mark.parametrize("name", ["exact_shapley", "kernel_shap", "rise"])
def test_players_of_games_say_how_patches_are_removed(name: str) -> None:
    tokens = there(configured(name, removal={"kind": "tokens"}).classifier_removal)
    assert tokens.kind == "tokens"
    assert configured(name, removal=None).classifier_removal is None
    assert configured("grad_cam").classifier_removal is None


def test_an_unknown_name_is_one_line_with_the_nearest_if_there_is_one() -> None:
    told = toolbox.refusal(entry, "kernel_shp")
    assert told == "explainer=kernel_shp is not a known explainer: did you mean kernel_shap?"
    start = f"explainer=zzz is not a known explainer: none of the {len(names())} is like it; there are "
    assert toolbox.refusal(entry, "zzz").startswith(start)


@pytest.mark.usefixtures("empty")
def test_a_class_is_prepared_with_the_classifier_that_removes_as_its_settings_say() -> None:
    @dataclass(frozen=True)
    class FlatParams(ExplainerParams):
        level: float = 0.5

        @property
        def classifier_removal(self) -> Removal:
            return Removal("tokens")

        def for_split(self, split: str) -> "FlatParams":
            return self if split == "train" else FlatParams(2 * self.level)

    @explainer("flat", label="Flat", about="the same everywhere", params=FlatParams)
    class Flat:
        def __init__(self, classifier: nn.Module, params: FlatParams) -> None:
            self.params = params

        def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return torch.full((len(images), 3, 3), self.params.level)

    found, context = entry("flat"), Context()
    assert names() == ["flat"]
    prepared = found.prepare(context, FlatParams())
    code = prepared.made_from["code"]  # it comes from a module that is not the framework's
    assert prepared.made_from == {"name": "flat", "level": 1.0, "code": code}
    assert context.asked == [], "no classifier is assembled before something has to be computed"
    made = prepared.build()
    assert isinstance(made, Flat)
    assert made.params.level == 1.0
    assert context.asked == [Removal("tokens")]


@pytest.mark.usefixtures("empty")
def test_a_function_prepares_what_a_classifier_is_not_enough_for() -> None:
    def check(context: Context, params: ExplainerParams) -> None:
        raise UserError("trained needs a bigger model")

    @explainer("trained", label="Trained", about="by a training", kind="trained", needs={"training"}, check=check)
    def trained(context: Context, params: ExplainerParams) -> Prepared:
        return Prepared({"split": context.split}, lambda: None, notes={"train_seconds": 1.0})  # type: ignore[arg-type, return-value]

    found = entry("trained")
    made_from = dict(found.prepare(Context(), ExplainerParams()).made_from)
    assert made_from.pop("code")  # it comes from a module that is not the framework's
    assert made_from == {"split": "test"}
    assert refusal(found, ExplainerParams(), Context()) == "trained needs a bigger model"
    with pytest.raises(UserError, match="trained is made from more than a classifier"):
        found.build(small_clip(), ExplainerParams())


@pytest.mark.usefixtures("empty")
def test_a_name_that_is_taken_is_refused_with_both_modules() -> None:
    class Flat:
        pass

    explainer("flat", label="Flat", about="the same everywhere")(Flat)
    with pytest.raises(UserError, match=rf"^the name flat is taken: {__name__} and {__name__} both register"):
        explainer("flat", label="Flat", about="the same everywhere")(Flat)


@pytest.mark.usefixtures("empty")
def test_a_cell_of_a_notebook_may_be_run_again() -> None:
    for _ in range(2):
        cell = type("Flat", (), {"__module__": "__main__"})
        explainer("flat", label="Flat", about="the same everywhere")(cell)
        assert entry("flat").of_classifier is cell


def test_what_nobody_has_heard_of_is_not_needed() -> None:
    with pytest.raises(ValueError, match="flat needs magic: known are"):
        explainer("flat", label="Flat", about="the same everywhere", needs={"magic"})


def test_what_does_not_fit_says_why_before_any_work() -> None:
    cnn = PaintedClassifier(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 5)), (3, 3), (0.5,) * 3, (0.5,) * 3
    )
    context = Context(classifier=cnn)
    reasons = {name: refusal(entry(name), configured(name), context) for name in OF_CLASSIFIERS}
    refused = {name for name, reason in reasons.items() if reason}
    transformers = {"attention_last", "attention_rollout", "attention_flow", "gradient_rollout", "chefer", "legrad"}
    rectified = {"full_grad", "guided_backprop"}
    assert refused == transformers | {"lrp", "attn_lrp", "vit_cx", "tis", "object_mask"} | rectified
    assert reasons["object_mask"] == "object_mask needs the regions of the objects, which data=pictures has not"
    seen = Context(classifier=cnn, regions=torch.ones(4, 12, 12, dtype=torch.bool))
    assert refusal(entry("object_mask"), configured("object_mask"), seen) is None
