"""Figures 2, 4 and 5 of Learn to Rank in pictures: what training shows, and what gradient steps make of a map."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from xai.explainers.registry import Row
from xai.models.maskable import Removal, reference_image
from xai.papers.ranking.mark import mass_on_mark
from xai.papers.ranking.params import RankingSettings, RefinedSettings
from xai.papers.ranking.shortcut import Shortcut
from xai.papers.ranking.study import StudyWithShortcut
from xai.ranking.areas import enlarge, perturb
from xai.ranking.axes import apply_axes, pixels_to_cells
from xai.ranking.masks import order_masks
from xai.ranking.objective import ObjectiveParams
from xai.report.gallery import gallery, of_study
from xai.report.page import Picture
from xai.report.pictures import Gallery, draw_picture, pixels_of, sheets
from xai.report.present import Told
from xai.study.frame import Frames

_OF_RANKING = re.compile(r"ranking(_t\d+)?")
_REMOVED = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_MASKS = (
    "Figure 2. What training asks the classifier about: soft masks take a growing share of the image away, the most "
    "important cells of its map first. Each image has a grid of G x G cells and a reference of its own, of those that "
    "training draws from; the order is as soft as at its end, without Gumbel noise."
)
_STEPS = (
    "Figure 4. The map that the network draws (T = 0), and what T gradient steps of the training objective for the one "
    "image make of it, for the predicted class."
)
_MARK = (
    "Figure 5. Marked images that are called the marked class, those of other classes first. The explainer never saw "
    "the mark, which is outlined; below each map is the share of it that lies on the mark."
)


def told(study: StudyWithShortcut, frames: Frames, output: Path) -> Told:
    """The sheets of Figures 2, 4 and 5."""
    return Told(pictures=partial(pictures_of_steps, study))


def pictures_of_steps(study: StudyWithShortcut, count: int) -> Iterator[Picture]:
    """The sheets of a study that draws maps, of one that refines them, and of one that looks for the mark."""
    drawn = next((row for row in study.measured_rows if row.name == "ranking"), None)
    shown = None if drawn is None else of_study(study, [drawn], count, second=False)
    if drawn is not None and shown is not None:
        assert isinstance(drawn.params, RankingSettings)
        mean, temperature = torch.tensor(study.cases[0][0].model.mean), drawn.params.loss.temperature_end
        figure = soft_deletion(shown, drawn.params.objective, mean, temperature)
        alt = f"{len(shown.images)} images with soft masks that remove {', '.join(map('{:.0%}'.format, _REMOVED))}."
        yield Picture.of(figure, alt, _MASKS, 560)
    refined = [row for row in study.measured_rows if _OF_RANKING.fullmatch(row.name)]
    steps = of_study(study, _by_steps(refined), count, second=False) if len(refined) > 1 else None
    if steps is not None:
        yield from _sheets(steps, _STEPS)
    mark = marked(study.shortcut, count) if study.shortcut is not None else None
    if mark is not None:
        yield from _sheets(mark, _MARK)


def soft_deletion(found: Gallery, params: ObjectiveParams, mean: Tensor, temperature: float) -> Figure:
    """Images as the objective's soft masks take them away (Figure 2).

    Args:
        found: Images with their pixel maps by one row.
        params: The objective, from whose grids and references each image has one.
        mean: [3], the mean of the classifier's normalisation, where `params` names no other.
        temperature: tau of the soft order.
    """
    (maps,) = found.maps.values()
    count, (height, width) = len(maps), maps.shape[1:]
    grids = torch.linspace(params.grid_min, params.grid_max, count).round().int().tolist()
    figure = Figure(figsize=(1.25 * len(_REMOVED) + 0.3, 1.55 * count + 0.2), layout="constrained")
    panels = figure.subplots(count, len(_REMOVED), squeeze=False)
    for number, (line, grid) in enumerate(zip(panels, grids, strict=True)):
        image, map_ = found.images[number, None].float(), maps[number, None].float()
        name = params.references[number % len(params.references)]
        cells = [pixels_to_cells(side, grid, map_) for side in (height, width)]
        scores = apply_axes(cells[0], map_, cells[1]).flatten(1)
        noise = scores.new_zeros(1, grid**2, grid**2)
        masks = order_masks(scores, noise, torch.tensor(_REMOVED), temperature, params.iterations)
        masks = enlarge(masks.clamp(0, 1).unflatten(2, (grid, grid)), height, width, params.sigma).clamp(0, 1)
        reference = reference_image(image, Removal("pixels", name), params.mean_of(mean))
        for axes, pixels, share in zip(line, pixels_of(perturb(image, reference, masks)[0]), _REMOVED, strict=True):
            draw_picture(axes, pixels)
            axes.set_title("" if number else f"{share:.0%} removed", fontsize=8)
        line[0].set_xlabel(f"G = {grid}, {name}", fontsize=8, parse_math=False)
    return figure


def marked(shortcut: Shortcut, count: int) -> Gallery | None:
    """Images with the mark, the maps after every number of steps, and how much of each lies on the mark."""
    case = shortcut.studies[0].cases[0][0]
    found = gallery(case, _by_steps(shortcut.rows), count, second=False)
    if found is None or found.regions is None:
        return found
    shares = {label: mass_on_mark(maps, found.regions) for label, maps in found.maps.items()}
    return replace(found, notes={label: [f"{share:.0%}" for share in each.tolist()] for label, each in shares.items()})


def _by_steps(rows: Sequence[Row]) -> list[Row]:
    steps = [row.params.step if isinstance(row.params, RefinedSettings) else 0 for row in rows]
    named = zip(steps, rows, strict=True)
    return [replace(row, label=f"T = {step}") for step, row in sorted(named, key=lambda pair: pair[0])]


def _sheets(found: Gallery, caption: str) -> Iterator[Picture]:
    alt = f"{len(found.images)} images with their maps at {', '.join(found.maps)}."
    for figure in sheets(found):
        yield Picture.of(figure, alt, caption, 560)
