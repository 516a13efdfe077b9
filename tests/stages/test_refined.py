import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.stages.ranked import OBJECTIVE, RANKING, REFINEMENT, colour, examination, networks
from tests.stages.studying import Trained
from xai.data.registry import Images
from xai.ranking.areas import confidence
from xai.ranking.objective import Question
from xai.ranking.refinement import in_units, refine_maps, refine_network
from xai.stages.perturbation import PerturbationExamination
from xai.stages.refined import Refinement, Start

DRAWN = Start("ranking", {"drawn": "colour"}, colour)
MEAN = torch.tensor([0.5, 0.5, 0.5])


def blocks(given: PerturbationExamination) -> list[tuple[Question, torch.Generator]]:
    """What each block of images asks for the first of its two classes, and its source of randomness."""
    made = []
    for number, rows in enumerate(torch.arange(6).split(4)):
        pixels, targets = given.images.pixels[rows], given.targets[rows, :1]
        whole = confidence(given.logits[rows], targets)
        made.append((Question(pixels, targets, whole), torch.Generator().manual_seed(number)))
    return made


def test_maps_after_t_steps_lie_on_one_walk(tmp_path: Path, trained: Trained) -> None:
    given = examination(tmp_path)
    refinement = Refinement(given, REFINEMENT)
    walks = []
    for asked, generator in blocks(given):
        start = colour(Images(asked.images, None), asked.targets[:, 0], generator)
        walk = refine_maps(start, asked, given.classifier, MEAN, OBJECTIVE, REFINEMENT, generator)
        walks.append(torch.stack(walk, dim=1))
    expected = torch.cat(walks)
    for steps in range(3):
        found = refinement.maps(DRAWN, steps).maps
        assert found.shape == (6, 2, 16, 16)
        torch.testing.assert_close(found[:, 0], expected[:, steps], rtol=1e-3, atol=1e-4)
    assert torch.equal(refinement.maps(DRAWN, 0).maps, given.maps(colour).maps)
    shorter = Refinement(given, replace(REFINEMENT, steps=1))
    assert torch.equal(shorter.maps(DRAWN, 1).maps, refinement.maps(DRAWN, 1).maps)
    seconds = [refinement.maps(DRAWN, steps).seconds for steps in range(3)]
    assert 0 < seconds[0] < seconds[1] < seconds[2]


def test_a_walk_is_made_once_and_anew_where_numbers_differ(tmp_path: Path, trained: Trained) -> None:
    given = examination(tmp_path)
    made = Refinement(given, REFINEMENT).refined(DRAWN)

    def never(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
        pytest.fail("it is refined already")

    chunked = replace(REFINEMENT, objective=replace(OBJECTIVE, chunk=3))
    assert Refinement(examination(tmp_path), chunked).refined(replace(DRAWN, draw=never)).key == made.key
    others = [
        Refinement(given, replace(REFINEMENT, size=0.4)).refined(DRAWN),
        Refinement(given, replace(REFINEMENT, objective=replace(OBJECTIVE, grid_max=3))).refined(DRAWN),
        Refinement(given, REFINEMENT).refined(replace(DRAWN, scale=2.0)),
        Refinement(given, REFINEMENT).refined(replace(DRAWN, made_from={})),
        Refinement(given, REFINEMENT).refined(replace(DRAWN, name="flat")),
    ]
    assert len({made.key, *(other.key for other in others)}) == 6


def test_a_map_of_foreign_scale_is_brought_to_the_one_asked_for(tmp_path: Path, trained: Trained) -> None:
    given = examination(tmp_path)
    raw = given.maps(colour).maps
    start = Refinement(given, replace(REFINEMENT, steps=1)).maps(replace(DRAWN, scale=4.0), 0).maps
    for image in range(6):
        for column in range(2):
            values = raw[image, column].double().numpy()
            expected = 4 * (values - values.mean()) / values.std(ddof=1)
            np.testing.assert_allclose(start[image, column], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(in_units(raw[:, 0], None), raw[:, 0])
    assert not in_units(torch.full((1, 4, 4), 0.5), 4.0).any()


def test_each_image_refines_a_decoder_of_its_own_and_the_trained_one_stays(tmp_path: Path, trained: Trained) -> None:
    given, stages = examination(tmp_path), networks(tmp_path)
    explainer = stages.explainer(RANKING)
    before = copy.deepcopy(explainer.state_dict())
    start = Start("decoder", {"ranking": stages.trained(RANKING).key}, explainer=lambda: explainer)
    refinement = Refinement(given, REFINEMENT)
    found = torch.stack([refinement.maps(start, steps).maps[:, 0] for steps in range(3)], dim=1)
    after = explainer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(value.requires_grad for value in explainer.parameters())
    expected = []
    for number, (block, _) in enumerate(blocks(given)):
        for row in range(len(block.images)):
            own = stages.explainer(RANKING)
            asked = Question(*(part[row : row + 1] for part in block))

            def explain(own=own, asked=asked) -> Tensor:  # type: ignore[no-untyped-def]
                return own(asked.images, asked.targets[:, 0])

            moved = list(own.decoder.requires_grad_(True).parameters())
            generator = torch.Generator().manual_seed(number)
            walk = refine_network(moved, explain, asked, given.classifier, MEAN, OBJECTIVE, REFINEMENT, generator)
            expected.append(torch.stack(walk, dim=1))
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-3, atol=1e-4)
    assert (found[:, 1:] - found[:, :1]).flatten(2).abs().amax(2).min() > 1e-4
