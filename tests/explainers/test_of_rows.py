"""Explainers that are made from another row's: a wrong class, the mean over classes, Kernel SHAP, pixels in patches."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.explainers.context import Context
from tests.explainers.settings import configured, explainer, small_clip, small_pictures
from tests.study.engine import made, study
from tests.toolbox import refusal, seeded, there
from xai.core.errors import UserError
from xai.explainers.block import Block, explain
from xai.explainers.controls.other_classes import wrong_classes
from xai.explainers.registry import Prepared, Row, entry, passes_of
from xai.explainers.registry import refusal as why_not
from xai.explainers.rows import cost_of, load_row, made_from
from xai.games import PatchGame
from xai.shapley.proxy import kernel_shap_with_proxy
from xai.study.maps import explain as explain_case

TARGETS = torch.tensor([4, 0, 2, 1])


def context(*rows: Row) -> Context:
    return Context({row.name: row for row in rows}, model=SimpleNamespace(classes=tuple("abcde")))


def row(name: str, **changes: Any) -> Row:
    return load_row(name, {name: changes})


def prepared(name: str, where: Context, **changes: Any) -> Prepared:
    return entry(name).prepare(where, configured(name, **changes))


def explained(made: Prepared, targets: Tensor = TARGETS, rows: Tensor | None = None) -> Tensor:
    rows = torch.arange(len(targets)) if rows is None else rows
    return there(explain(made.build(), Block(small_pictures(len(targets)), targets, None, None, rows, seeded())).maps)


def test_a_wrong_class_is_another_and_every_other_one_as_often() -> None:
    rows = torch.arange(8000)
    found = wrong_classes(torch.full_like(rows, 3), rows, 5)
    counts = found.bincount(minlength=5)
    assert counts[3] == 0
    assert counts[[0, 1, 2, 4]].sub(2000).abs().max() < 150
    # Neighbours do not go by turns.
    assert len({tuple(few) for few in found[:400].reshape(-1, 4).tolist()}) > 50
    assert wrong_classes(rows % 2, rows, 2).tolist() == (1 - rows % 2).tolist()
    picked = torch.tensor([17, 5_000_000_000])
    alone = [wrong_classes(torch.zeros(1, dtype=torch.long), each, 5) for each in picked.split(1)]
    assert torch.equal(wrong_classes(torch.zeros(2, dtype=torch.long), picked, 5), torch.cat(alone))


def test_the_map_of_a_wrong_class_is_that_of_the_class() -> None:
    made = prepared("wrong_class", context(row("saliency")), of="saliency")
    other = wrong_classes(TARGETS, torch.arange(4), 5)
    expected = explainer("saliency", small_clip()).attribute(small_pictures(4), other)
    torch.testing.assert_close(explained(made), expected)
    assert made.passes == 3
    assert made.made_from["of"] == dict(entry("saliency").prepare(context(), configured("saliency")).made_from)


@pytest.mark.parametrize("classes", [None, 2])
def test_the_mean_over_classes_is_the_mean_of_their_maps(classes: int | None) -> None:
    settings = {"coalitions": 12, "evaluation_coalitions": 12, "removal": None}
    made = prepared("mean_over_classes", context(row("kernel_shap", **settings)), of="kernel_shap", classes=classes)
    asked = range(5) if classes is None else (0, 2)
    ours = explainer("kernel_shap", small_clip(), **settings)
    each = [ours.attribute(small_pictures(4), torch.full((4,), index), seeded()) for index in asked]
    torch.testing.assert_close(explained(made), torch.stack(each).mean(0))
    torch.testing.assert_close(explained(made, (TARGETS + 1) % 5), explained(made))
    assert made.passes == 14
    cam = context(row("grad_cam"))
    assert prepared("mean_over_classes", cam, of="grad_cam", classes=classes).passes == len(asked)


@pytest.mark.parametrize("name", ["wrong_class", "mean_over_classes"])
def test_maps_that_are_the_same_for_every_class_are_refused(name: str) -> None:
    told = refusal(entry(name).check, context(row("brightness")), configured(name, of="brightness"))
    assert told == f"{name}: the maps of brightness are the same for every class"
    told = refusal(entry(name).check, context(row("object_mask")), configured(name, of="object_mask"))
    assert told.startswith(f"{name} is made from object_mask, which cannot be had here: object_mask needs the regions")


@pytest.mark.parametrize("of", [{"sess": "sess"}, {"sess": "wrong_class", "wrong_class": "sess"}])
def test_a_row_that_is_made_from_itself_is_refused_in_a_line(of: dict[str, str]) -> None:
    where = context(*(row(name, of=source) for name, source in of.items()))
    sess = where.row("sess")
    told = refusal(made_from, [sess], {name: {"of": source} for name, source in of.items()})
    for line in (told, why_not(sess.entry, sess.params, where)):
        assert line in {f"of={name}: {name} is made from itself, name another row" for name in of}
    assert cost_of(where, sess) == 0


@pytest.mark.parametrize("start", ["saliency", "saliency_pixels"])
def test_kernel_shap_starts_at_the_maps_of_a_row_in_patches(start: str) -> None:
    of = row(start, sigma=0.0, output="logit")
    made = prepared("kernel_shap_proxy", context(of), of=start, coalitions=12, output="logit")
    guess = explainer("saliency", small_clip(), output="logit").attribute(small_pictures(4), TARGETS)
    game = PatchGame(small_clip(), small_pictures(4), TARGETS, output="logit")
    expected = kernel_shap_with_proxy(game, 12, seeded(), guess.flatten(1)).reshape(4, 3, 3)
    torch.testing.assert_close(explained(made), expected)
    assert made.passes == 3 + 14
    assert prepared("kernel_shap_proxy", context(of), of=start, coalitions=600).passes == 3 + 2**9


def test_kernel_shap_explains_an_image_alone_as_in_company() -> None:
    made = prepared("kernel_shap_proxy", context(row("saliency")), of="saliency", coalitions=12)
    ours, images = made.build(), small_pictures(4)
    alone = []
    for i in range(4):
        block = Block(images[i : i + 1], TARGETS[i : i + 1], None, None, torch.tensor([i]), seeded())
        alone.append(explain(ours, block).maps)
    torch.testing.assert_close(torch.cat(alone), explained(made), rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


PIXELS_AND_PATCHES = ("integrated_gradients_pixels", "integrated_gradients_pixels_pooled")


def test_any_row_of_pixels_has_one_in_patches_by_its_name() -> None:
    row = load_row(PIXELS_AND_PATCHES[1])
    assert (row.entry.name, row.label) == ("pooled", "Int. grad., px, pooled")
    assert not row.params.of_pixels
    sources = made_from([row], {PIXELS_AND_PATCHES[0]: {"steps": 3}})
    assert {name: source.params for name, source in sources.items()} == {
        PIXELS_AND_PATCHES[0]: load_row(PIXELS_AND_PATCHES[0], {PIXELS_AND_PATCHES[0]: {"steps": 3}}).params
    }
    with pytest.raises(UserError, match=r"^explainer=integrated_gradient_pixels .* did you mean"):
        load_row("integrated_gradient_pixels_pooled")


def test_it_is_the_mean_of_the_other_rows_own_maps_which_are_made_once(tmp_path: Path) -> None:
    asked = study(tmp_path, PIXELS_AND_PATCHES, changes={PIXELS_AND_PATCHES[0]: {"steps": 2}})
    frames = asked.run()
    assert made(asked).count("maps") == 1
    case, (pixels, pooled) = asked.cases[0][0], asked.rows
    whole, averaged = (there(explain_case(case, row).attributions) for row in (pixels, pooled))
    assert averaged.shape[1:] == case.network().grid
    assert averaged.equal(F.avg_pool2d(whole, whole.shape[-1] // averaged.shape[-1]))
    assert frames.costs.groupby("explainer")["passes"].first().tolist() == [6.0, 6.0]
    scores = frames.scores.pivot_table(index="explainer", columns="metric", values="value")
    assert scores.loc[PIXELS_AND_PATCHES[0], "rma"] != scores.loc[PIXELS_AND_PATCHES[1], "rma"]


def test_what_has_no_pixels_or_cannot_be_had_is_refused() -> None:
    context = Context({name: load_row(name) for name in ("saliency", "object_mask_pixels")})
    for name, reason in (
        ("saliency", "pooled: the maps of saliency are not of pixels"),
        ("object_mask_pixels", "pooled is made from object_mask_pixels, which cannot be had here: object_mask needs"),
    ):
        assert str(why_not(entry("pooled"), configured("pooled", of=name), context)).startswith(reason)
    saliency = load_row("saliency")
    assert passes_of(context, saliency, saliency.entry.prepare(context, saliency.params)) == 3
