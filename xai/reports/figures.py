"""Figures as PNG: the lambda2 sweep and pictures of maps (Figures 3 and 4 of explainability vectors), one heat map.

Everything is drawn on figures of their own, never through pyplot's shared state, so that any thread may draw.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from xai.core.errors import UserError
from xai.metrics.functional import normalise
from xai.metrics.functional.agreement import largest
from xai.metrics.significance import confidence_interval, mean_and_deviation
from xai.reports.columns import COLUMNS
from xai.results import Result

Floats = NDArray[np.float64]

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#595959"
"""Blue and vermilion of Okabe and Ito, which all kinds of colour vision tell apart."""
LIMIT = 2.5
"""Normalised attribution, in standard deviations, at which colour saturates."""
# Without its ends, which are so dark that blue and red look alike and hide the image below.
_COLOURS = LinearSegmentedColormap.from_list("evidence", colormaps["RdBu_r"](np.linspace(0.1, 0.9, 256)))


@dataclass(frozen=True)
class MapColumn:
    """A column of the pictures.

    Args:
        label: Printed above it.
        maps: [n, h, w].
        predictions: Integers [n], the classes its model predicts; None where it is no classifier.
    """

    label: str
    maps: Tensor
    predictions: Tensor | None = None


def lambda_sweep(
    results: Sequence[Result],
    ft_target: Result | Sequence[Result],
    chosen: float,
    metrics: Sequence[str] = ("e_rmse", "iou@10", "accuracy"),
) -> bytes:
    """Figure 3: one panel a metric over lambda2, divided by ft target's value; the right axis is the value itself.

    Args:
        results: Of the proposed model, for each lambda2 one per run.
        ft_target: Of the model fine-tuned on the target, one per run.
        chosen: The lambda2 to be marked.
        metrics: Keys of `result.json`.

    Returns:
        A PNG. Several runs are drawn as their mean with a 95 % band (Student's t).

    Raises:
        UserError: There are no results, one has no lambda2, or its run has no ft target.
    """
    references = [ft_target] if isinstance(ft_target, Result) else list(ft_target)
    if not results or not references:
        raise UserError("a sweep of no results cannot be drawn; give at least one of proposed and of ft_target")
    figure = Figure(figsize=(3.6 * len(metrics), 3.1), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        _sweep_panel(panel, metric, _by_lambda(results, references, metric), _mean_of(references, metric), chosen)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return to_png(figure)


def explanation_grid(
    images: Tensor,
    columns: Sequence[MapColumn],
    labels: Tensor,
    class_names: Sequence[str],
    k: int,
) -> bytes:
    """Figure 4: for each image a row of heat maps, and below it a row of the k highest patches.

    Args:
        images: uint8 [n, 3, H, W].
        columns: The reference first, then the rows of the table that are to be seen.
        labels: Integers [n], the images' classes.
        class_names: By class.
        k: How many patches to highlight.

    Returns:
        A PNG.

    Raises:
        UserError: Sizes do not match, or k is not between 1 and the number of patches.
    """
    _check_grid(images, columns, labels, k)
    count, across = len(images), len(columns) + 1
    height, width = images.shape[-2:]
    cell_w, cell_h = 1.25, min(max(1.25 * height / width, 0.4), 4.0)
    figure = Figure(figsize=(cell_w * across + 0.35, count * (2 * cell_h + 0.5) + 1.15))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    heights = [part for _ in range(count) for part in (1.0, 1.0)]
    panels = figure.subplots(2 * count, across, squeeze=False, gridspec_kw={"height_ratios": heights})
    pixels = images.permute(0, 2, 3, 1).cpu().numpy()
    for row in range(count):
        above, below = panels[2 * row], panels[2 * row + 1]
        show(above[0], pixels[row])
        above[0].set_title("input" if row == 0 else "", fontsize=8)
        above[0].set_xlabel(f"“{shorten(class_names[int(labels[row])], 16)}”", fontsize=8, parse_math=False)
        below[0].set_axis_off()
        below[0].text(0.97, 0.5, f"top {k}\npatches", fontsize=8, ha="right", va="center", color=GREY)
        for column, top, bottom in zip(columns, above[1:], below[1:], strict=True):
            show(top, overlay(pixels[row], normalised(column.maps[row])))
            top.set_title(wrap(column.label) if row == 0 else "", fontsize=8, parse_math=False)
            _name_prediction(top, column, row, int(labels[row]), class_names)
            show(bottom, dimmed(pixels[row], column.maps[row], k))
            _outline(bottom, column.maps[row], k, (height, width))
    colour_bar(figure, panels.ravel().tolist(), "bottom", aspect=60)
    return to_png(figure)


def heatmap_overlay(image: Tensor, attribution: Tensor, title: str = "") -> Image.Image:
    """An image, its heat map over it, and a colour bar, side by side.

    Args:
        image: uint8 [3, H, W]; small ones are enlarged without smoothing, so that their pixels stay what they are.
        attribution: [h, w].
        title: Printed above the heat map, for example the class.

    Returns:
        An RGB image about 1,000 pixels wide, larger for larger sources.

    Raises:
        UserError: Not an image and a map.
    """
    if image.ndim != 3 or image.shape[0] != 3 or attribution.ndim != 2 or 0 in (*image.shape, *attribution.shape):
        raise UserError(
            f"an image of shape {tuple(image.shape)} and a map of {tuple(attribution.shape)}; wanted are [3, H, W] and "
            "[h, w], none of them 0"
        )
    height, width = image.shape[-2:]
    tall = min(max(4.0 * height / width, 1.5), 8.0)
    figure = Figure(figsize=(9.6, tall + 0.6), layout="constrained", dpi=min(max(100, math.ceil(width / 4)), 300))
    left, right = figure.subplots(1, 2)
    pixels = image.permute(1, 2, 0).cpu().numpy()
    show(left, pixels)
    show(right, overlay(pixels, normalised(attribution)))
    left.set_title("input", fontsize=10)
    right.set_title(title or "evidence for the class", fontsize=10, parse_math=False)
    colour_bar(figure, [left, right], "right", aspect=30)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def overlay(pixels: NDArray[np.uint8], evidence: Floats) -> Floats:
    """A grey image [H, W, 3] under the colours of a normalised map [h, w]; floats [H', W', 3] in [0, 1].

    Colour grows with distance from the map's mean, so that the image shows where the map says nothing.
    """
    canvas, rows, columns = _enlarged(pixels, evidence.shape)
    scaled = np.clip(evidence / LIMIT, -1, 1)[rows][:, columns]
    grey = (0.2 + 0.6 * canvas.mean(-1, keepdims=True) / 255).repeat(3, -1)
    weight = 0.8 * np.abs(scaled)[..., None]
    return (1 - weight) * grey + weight * _COLOURS((scaled + 1) / 2)[..., :3]


def dimmed(pixels: NDArray[np.uint8], attribution: Tensor, k: int) -> Floats:
    """An image [H, W, 3] dark outside the k highest patches of a map [h, w]; floats [H', W', 3] in [0, 1]."""
    canvas, rows, columns = _enlarged(pixels, tuple(attribution.shape))
    keep = _top(attribution, k)[rows][:, columns, None]
    return np.where(keep, canvas, 0.3 * canvas) / 255


def _by_lambda(results: Sequence[Result], references: Sequence[Result], metric: str) -> dict[float, list[float]]:
    """Values divided by ft target's of the same run, by lambda2; NaN where either is undefined or ft target's is 0."""
    found = {_run(reference): reference.metrics.get(metric, math.nan) for reference in references}
    values: dict[float, list[float]] = {}
    for result in results:
        if "lambda2" not in result.params:
            raise UserError(f"a result of {result.role} has no lambda2; the sweep takes results of proposed")
        if _run(result) not in found:
            raise UserError(f"no result of ft_target for {result.data} with seed {result.seed}; give one of each run")
        reference = found[_run(result)] or math.nan
        values.setdefault(result.params["lambda2"], []).append(result.metrics.get(metric, math.nan) / reference)
    return dict(sorted(values.items()))


def _run(result: Result) -> tuple[str, str | None, str, int]:
    return result.model, result.source, result.data, result.seed


def _mean_of(results: Sequence[Result], metric: str) -> float:
    return mean_and_deviation([result.metrics.get(metric, math.nan) for result in results])[0]


def _sweep_panel(axes: Axes, metric: str, values: dict[float, list[float]], reference: float, chosen: float) -> None:
    column = COLUMNS.get(metric)
    name = column.label if column else metric
    better = "" if column is None else f" ({'higher' if column.larger_is_better else 'lower'} is better)"
    axes.set_title(f"{name}{better}", fontsize=10)
    axes.set_xlabel("λ₂", fontsize=10)
    axes.tick_params(labelsize=9)
    axes.spines[["top"]].set_visible(False)
    means = np.array([mean_and_deviation(group)[0] for group in values.values()])
    if not np.isfinite(means).any():
        axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_yticks([])
        return
    lambdas = np.array(list(values))
    band = np.array([confidence_interval(group) for group in values.values()])
    axes.axhline(1, color=GREY, linestyle="--", linewidth=1.2, label="fine-tuned on target")
    axes.axvline(chosen, color=GREY, linestyle=":", linewidth=1.2)
    axes.plot(lambdas, means, color=BLUE, marker="o", markersize=4, linewidth=1.8, label="proposed")
    if np.isfinite(band).any():
        axes.fill_between(lambdas, band[:, 0], band[:, 1], color=BLUE, alpha=0.18, linewidth=0, label="95 % interval")
    at = np.flatnonzero(np.isclose(lambdas, chosen))
    axes.plot(
        lambdas[at],
        means[at],
        linestyle="",
        marker="o",
        markersize=10,
        markerfacecolor="none",
        markeredgewidth=2,
        color=ORANGE,
        label=f"chosen on validation: {chosen:g}",
    )
    _roomy(axes)
    axes.set_ylabel("relative to fine-tuned on target", fontsize=9)
    right = axes.secondary_yaxis("right", functions=_scaling(reference))
    right.set_ylabel("value", fontsize=9)
    right.tick_params(labelsize=9)


def _scaling(factor: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """There and back between a share of `factor` and the value itself."""
    return lambda share: share * factor, lambda value: value / factor


def _roomy(axes: Axes) -> None:
    """Keep the axis from blowing up a difference of a few per cent into a cliff."""
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.9), max(high, 1.1))


def _check_grid(images: Tensor, columns: Sequence[MapColumn], labels: Tensor, k: int) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape or not columns:
        raise UserError(f"images of shape {tuple(images.shape)} and {len(columns)} columns; wanted are [n, 3, H, W]")
    for name, tensor in [("labels", labels), *((column.label, column.maps) for column in columns)]:
        if len(tensor) != len(images):
            raise UserError(f"{len(tensor)} of {name} for {len(images)} images; there has to be one for each")
    patches = min(column.maps[0].numel() for column in columns)
    if not 1 <= k <= patches:
        raise UserError(f"the top {k} of {patches} patches; k has to be between 1 and {patches}")


def _name_prediction(axes: Axes, column: MapColumn, row: int, label: int, class_names: Sequence[str]) -> None:
    if column.predictions is None:
        return
    predicted = int(column.predictions[row])
    right = predicted == label
    text = f"{'✓' if right else '✗'} {shorten(class_names[predicted], 14)}"
    axes.set_xlabel(text, fontsize=8, color=BLUE if right else ORANGE, parse_math=False)


def normalised(attribution: Tensor) -> Floats:
    """A map [h, w] with mean 0 and deviation 1; zeros where it is constant."""
    return normalise(attribution.detach().cpu().double().flatten()).reshape(attribution.shape).numpy()


def _top(attribution: Tensor, k: int) -> NDArray[np.bool_]:
    flat = attribution.detach().cpu().flatten()[None]
    keep = np.zeros(flat.shape[1], dtype=bool)
    keep[largest(flat, k)[0].numpy()] = True
    return keep.reshape(tuple(attribution.shape))


def _outline(axes: Axes, attribution: Tensor, k: int, size: tuple[int, int]) -> None:
    """Frame the highest patches; axes run over the image from 0 to 1."""
    (rows, columns), keep = attribution.shape, _top(attribution, k)
    for row, column in zip(*np.nonzero(keep), strict=True):
        corner, wide, tall = (column / columns, row / rows), 1 / columns, 1 / rows
        axes.add_patch(Rectangle(corner, wide, tall, fill=False, edgecolor="#f0e442", linewidth=0.8))


def _enlarged(
    pixels: NDArray[np.uint8], grid: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """The image, repeated until each patch has a pixel of its own, and the patch that each row and column is in."""
    factor = max(1, *(math.ceil(patches / side) for patches, side in zip(grid, pixels.shape[:2], strict=True)))
    canvas = pixels.repeat(factor, 0).repeat(factor, 1)
    rows, columns = (np.arange(side) * patches // side for patches, side in zip(grid, canvas.shape[:2], strict=True))
    return canvas, rows, columns


def show(axes: Axes, picture: NDArray[np.uint8] | Floats) -> None:
    """Fill a panel with a picture [H, W, 3], in its own proportions and without ticks."""
    axes.imshow(picture, interpolation="nearest" if picture.shape[1] < 400 else "antialiased", extent=(0, 1, 1, 0))
    axes.set_aspect(picture.shape[0] / picture.shape[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def colour_bar(figure: Figure, axes: list[Axes], location: str, aspect: float) -> None:
    """Say beside some panels what the colours of their maps mean."""
    mappable = ScalarMappable(Normalize(-LIMIT, LIMIT), _COLOURS)
    bar = figure.colorbar(mappable, ax=axes, location=location, aspect=aspect, shrink=0.8, pad=0.01, extend="both")
    bar.set_label("attribution, in standard deviations from the map's mean", fontsize=8)
    bar.ax.tick_params(labelsize=8)


def shorten(text: str, length: int) -> str:
    """A text cut to at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def wrap(text: str) -> str:
    """At most three lines of about 14 characters, so that long labels do not run into each other."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > 14:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:3])


def to_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG, the same for the same figure."""
    target = io.BytesIO()
    FigureCanvasAgg(figure)
    # Without the version, the same figure is the same bytes.
    figure.savefig(target, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return target.getvalue()
