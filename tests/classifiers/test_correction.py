"""How much of a correction is kept, against the same chosen by loops over images, pixels and shares."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.classifiers.ranked import DECODER, RANKING, networks
from tests.classifiers.studying import Trained
from tests.classifiers.tiny import DATA
from xai.core.errors import UserError
from xai.models.maskable import Removal, reference_image
from xai.papers.ranking.correction import largest_as_good
from xai.papers.ranking.networks import RankingStages
from xai.papers.ranking.params import CorrectionParams, RankingSettings

WHOLE = replace(RANKING, decoder=replace(DECODER, gradient="path", skip=True))
CHOICE = CorrectionParams((0.0, 0.25, 1.0), images=3, within=1e-4, steps=4)
TARGETS = torch.tensor([3, 0])


def corrected(choice: CorrectionParams | None = CHOICE) -> RankingSettings:
    return replace(WHOLE, correction=choice)


@pytest.mark.parametrize(("within", "kept"), [(0.0, 0.25), (0.05, 0.25), (0.1, 0.5), (0.3, 1.0)])
def test_the_largest_share_is_kept_that_is_as_good_as_the_best(within: float, kept: float) -> None:
    found = torch.tensor([0.7, 0.875, 0.8125, 0.625], dtype=torch.float64)
    assert largest_as_good((0.0, 0.25, 0.5, 1.0), found, within) == kept
    turned = (1.0, 0.5, 0.25, 0.0), found.flip(0)
    assert largest_as_good(*turned, within) == kept


def difference(made: RankingStages, images: Tensor, maps: Tensor) -> float:
    """Insertion less deletion of the predicted classes, a pixel order and a perturbed image at a time."""
    classifier, mean, steps = made.stages.network("classifier"), torch.tensor(made.stages.model.mean), CHOICE.steps
    found = []
    for image, drawn in zip(images, maps, strict=True):
        order, whole = drawn.flatten().argsort(descending=True).tolist(), image.flatten(1)
        target = int(classifier(image[None]).argmax())
        for name in made.params.objective.references:
            other = reference_image(image[None], Removal("pixels", name), mean)[0].expand_as(image).flatten(1)
            values: dict[str, list[float]] = {"deletion": [], "insertion": []}
            for step in range(steps):
                first = order[: (2 * len(order) * step + steps - 1) // (2 * (steps - 1))]
                last = order[len(order) - len(first) :]
                for kind, rows in (("deletion", first), ("insertion", last)):
                    pixels = whole.clone()
                    pixels[:, rows] = other[:, rows]
                    answer = classifier(pixels.reshape(1, *image.shape)).double().softmax(1)[0, target]
                    values[kind].append(float(answer))
            # What is inserted first is deleted last.
            area = {
                kind: sum(curve) / (steps - 1) - (curve[0] + curve[-1]) / 2 / (steps - 1)
                for kind, curve in values.items()
            }
            found.append(area["insertion"] - area["deletion"])
    return sum(found) / len(found)


def test_what_is_kept_is_chosen_on_validation_images_of_what_was_trained_once(tmp_path: Path, trained: Trained) -> None:
    made, full, bare = (
        networks(tmp_path, corrected(choice)) for choice in (CHOICE, None, replace(CHOICE, shares=(0.0,)))
    )
    rows = torch.randperm(len(DATA.source.labels("validation")), generator=torch.Generator().manual_seed(0))[:3]
    images = DATA.source.images("validation", rows.sort().values, 0).pixels
    targets = made.stages.network("classifier")(images).argmax(1)
    start, whole = bare.explainer().attribute(images, targets), full.explainer().attribute(images, targets)
    assert start.sub(whole).abs().max() > 0.01
    found = [difference(made, images, torch.lerp(start, whole, share)) for share in CHOICE.shares]
    expected = max(s for s, value in zip(CHOICE.shares, found, strict=True) if value >= max(found) - CHOICE.within)
    assert made.kept == expected
    torch.testing.assert_close(made.explainer().attribute(images, targets), torch.lerp(start, whole, expected))
    assert (bare.kept, full.kept) == (0.0, None)
    assert trained.names == ["Classifier", "Ranking"]
    assert made.whole.key == full.trained.key == bare.whole.key != made.trained.key
    assert made.seconds >= full.seconds


def test_a_correction_of_nothing_and_more_images_than_there_are_are_refused(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(UserError, match=r"correction.* set decoder.skip=true, or null here"):
        replace(RANKING, correction=CHOICE)
    with pytest.raises(UserError, match="999 images were asked for, the validation split has"):
        networks(tmp_path, corrected(replace(CHOICE, images=999))).check()
    assert trained.names == []
