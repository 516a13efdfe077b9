"""Submodular subset selection, against the paper's scores written out for one image and one set at a time."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.explainers.settings import explainer, small_clip, small_pictures
from tests.toolbox import refusal
from xai.models.maskable import PaintedClassifier, Removal

TARGETS = torch.tensor([4, 1])


def distance(a: Tensor, b: Tensor) -> float:
    return math.acos(max(-1.0, min(1.0, float(a @ b / (a.norm() * b.norm()))))) / math.pi


def literal(image: Tensor, target: int, weights: tuple[float, float, float], output: str) -> list[int]:
    model = small_clip(Removal("pixels", "0.25"))

    def logits(members: list[int]) -> Tensor:
        keep = torch.zeros(1, 9, dtype=torch.bool)
        keep[0, members] = True
        return model(image[None], keep)[0].double()

    def answer(members: list[int]) -> float:
        found = logits(members)
        return float((found if output == "logit" else found.softmax(0))[target])

    features = [logits([patch]) for patch in range(9)]
    chosen: list[int] = []
    while len(chosen) < 9:
        scores = {}
        for patch in (each for each in range(9) if each not in chosen):
            members = [*chosen, patch]
            others = [[distance(features[i], features[j]) for j in members if j != i] or [1.0] for i in members]
            effective = sum(min(each) for each in others)
            rest = [each for each in range(9) if each not in members]
            scores[patch] = (
                weights[0] * effective + weights[1] * answer(members) + weights[2] * (1 - answer(rest))
            )  # fmt: skip
        chosen.append(max(scores, key=lambda patch: scores[patch]))
    return chosen


@pytest.mark.parametrize(
    ("weights", "output"),
    [((1.0, 1.0, 1.0), "probability"), ((0.0, 1.0, 0.5), "logit"), ((2.0, 0.0, 1.0), "probability")],
)
def test_patches_are_chosen_by_the_scores_of_the_paper(weights: tuple[float, float, float], output: str) -> None:
    named = dict(zip(("effectiveness", "consistency", "collaboration"), weights, strict=True))
    ours = explainer("submodular", small_clip(Removal("pixels", "0.25")), **named, output=output)
    found = ours.attribute(small_pictures(2), TARGETS).flatten(1)
    for image, target, each in zip(small_pictures(2), TARGETS.tolist(), found, strict=True):
        assert each.argsort(descending=True).tolist() == literal(image, target, weights, output)
    torch.testing.assert_close(found.sort(1).values, (torch.arange(1, 10) / 9).expand(2, -1))


class Contrast(nn.Module):
    """Brings each image to deviation 1, so that it has no answer to one that is the same everywhere."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return ((flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True))[:, :5]


@pytest.mark.parametrize("name", ["mda", "submodular"])
def test_no_order_is_searched_by_answers_that_are_no_numbers(name: str) -> None:
    made = explainer(name, PaintedClassifier(Contrast(), (3, 3), (0.5,) * 3, (0.5,) * 3).double())
    told = refusal(made.attribute, small_pictures(2), TARGETS)
    assert told == "the classifier's answers with patches removed hold NaN or infinity: give one with finite outputs"
