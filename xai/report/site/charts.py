"""Figures of matplotlib as what Plotly draws in the browser: vectors, with values on hover.

A figure is drawn once, by its own function (`xai.report.figures`); this reads from it points, bars, bands, pictures and
words, whichever figure it is.
"""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgba
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator

from xai.report.figures.style import words_of
from xai.report.site.values import rounded

Json = dict[str, Any]

_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
_MARKERS = {
    "o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond", "X": "x", "P": "cross",
}  # fmt: skip
_HEIGHT = 340
"""CSS pixels of a line of panels."""


def chart_of(figure: Figure) -> Json:
    """Traces and layout for `Plotly.newPlot`, without colours of text and ground, which are the page's."""
    traces: list[Json] = []
    layout: Json = {"annotations": [], "shapes": [], "hovermode": "closest"}
    panels = [axes for axes in figure.axes if axes.get_subplotspec() is not None and axes.get_label() != "<colorbar>"]
    panels = [axes for axes in panels if axes.axison]
    shape = [axes.get_subplotspec() for axes in panels]
    down = max((spec.get_gridspec().nrows for spec in shape if spec), default=1)
    across = max((spec.get_gridspec().ncols for spec in shape if spec), default=1)
    named: set[str] = set()
    for number, (axes, spec) in enumerate(zip(panels, shape, strict=True), start=1):
        assert spec is not None
        suffix = "" if number == 1 else str(number)
        place = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
        for trace in _traces(axes):
            name = trace.get("name", "")
            # Panels share their legend: each name stands there once, and switches its lines in all of them.
            shown = bool(name) and name not in named and trace.get("showlegend", True)
            named |= {name} if shown else set()
            traces.append({**trace, **place, "showlegend": shown, "legendgroup": name})
        column, row = spec.colspan.start, spec.rowspan.start
        layout[f"xaxis{suffix}"] = _axis(axes, "x") | {"domain": _domain(column, across), "anchor": f"y{suffix}"}
        layout[f"yaxis{suffix}"] = _axis(axes, "y") | {"domain": _domain(down - 1 - row, down), "anchor": f"x{suffix}"}
        layout["annotations"] += [*_title(axes, suffix), *_words(axes, suffix)]
        layout["shapes"] += _levels(axes, suffix)
    layout |= {"height": _HEIGHT * down + 90, "barmode": "overlay"}
    return {"data": traces, "layout": layout, "across": across}


def _traces(axes: Axes) -> list[Json]:
    inside: set[int] = set()
    traces = []
    words = {_at(*note.xy): note.get_text() for note in axes.texts if isinstance(note, Annotation)}
    for container in axes.containers:
        if isinstance(container, BarContainer):
            traces.append(_bars(container))
            inside |= {id(line) for line in _lines_of(container.errorbar)}
        elif isinstance(container, ErrorbarContainer) and id(container.lines[0]) not in inside:
            traces.extend(_points(container, words))
            inside |= {id(line) for line in _lines_of(container)}
    for collection in axes.collections:
        if isinstance(collection, PolyCollection):
            traces.extend(_band(collection))
    for line in axes.lines:
        has_points, is_named = len(_points_of(line)[0]) > 0, bool(_name(line.get_label()))
        if id(line) not in inside and has_points and _in_data(line, axes):
            traces.append(_line(line))
        elif is_named and not has_points:  # of the legend alone
            traces.append(_line(line) | {"x": [None], "y": [None]})
        elif is_named and (across := _across(line, axes)):
            traces.append(_level(line, axes, *across))
    return [*(_picture(image, axes) for image in axes.images), *traces]


def _lines_of(container: ErrorbarContainer | None) -> list[Any]:
    if container is None:
        return []
    data, caps, _ = container.lines
    return [data, *caps]


def _bars(bars: BarContainer) -> Json:
    middle = [float(each.get_x() + each.get_width() / 2) for each in bars.patches]
    first = bars.patches[0] if bars.patches else None
    trace: Json = {"type": "bar", "name": _name(bars.get_label()), "x": middle}
    trace |= {"y": [float(each.get_height()) for each in bars.patches]}
    if first is not None:
        trace |= {"width": float(first.get_width()), "marker": {"color": to_hex(first.get_facecolor())}}
    if bars.errorbar is not None:
        trace |= _errors(bars.errorbar, trace["y"])
    return trace


def _points(bars: ErrorbarContainer, words: Mapping[Any, str]) -> list[Json]:
    data = bars.lines[0]
    if data is None:
        return []
    trace = _line(data) | {"name": _name(bars.get_label())}
    trace |= _errors(bars, trace["y"])
    said = [_plain(words.get(_at(x, y), "")) for x, y in zip(*_points_of(data), strict=True)]
    return [trace | _hover(said)]


def _hover(words: list[str]) -> Json:
    """What is shown at each point besides its place."""
    template = "<b>%{text}</b><br>%{x:.4~g}, %{y:.4~g}<extra>%{fullData.name}</extra>"
    return {"text": words, "hovertemplate": template} if any(words) else {}


def _points_of(line: Line2D) -> tuple[Any, Any]:
    """The places [K] of a line, as floats."""
    x, y = (np.atleast_1d(np.asarray(values, dtype=float)) for values in (line.get_xdata(), line.get_ydata()))
    return x, y


def _at(x: Any, y: Any) -> tuple[float, float]:
    """A place by which a point and what is written there find each other."""
    return round(float(x), 12), round(float(y), 12)


def _errors(bars: ErrorbarContainer, y: list[float | None]) -> Json:
    # Paths and not segments, which have nothing at a point whose interval nobody knows.
    paths = [np.asarray(path.vertices) for collection in bars.lines[2] for path in collection.get_paths()]
    if len(paths) != len(y):
        return {}
    ends = [(float(np.min(each[:, 1])), float(np.max(each[:, 1]))) for each in paths]
    above = [None if value is None else rounded(high - value) for (_, high), value in zip(ends, y, strict=True)]
    below = [None if value is None else rounded(value - low) for (low, _), value in zip(ends, y, strict=True)]
    return {"error_y": {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.2}}


def _line(line: Line2D) -> Json:
    x, y = _points_of(line)
    marker = str(line.get_marker())
    stroke = _DASHES.get(str(line.get_linestyle()))
    has_marks = marker not in ("", "None", "none", " ")
    modes = [*(["lines"] if stroke else []), *(["markers"] if has_marks else [])]
    colour = to_hex(line.get_color())
    trace: Json = {"type": "scatter", "name": _name(line.get_label()), "mode": "+".join(modes) or "lines"}
    trace |= {"x": [rounded(each) for each in x], "y": [rounded(each) for each in y], "opacity": line.get_alpha() or 1}
    trace |= {"line": {"color": colour, "dash": stroke or "solid", "width": max(1.5, float(line.get_linewidth()))}}
    if shape := {"steps-post": "hv", "steps-pre": "vh"}.get(str(line.get_drawstyle())):
        trace["line"]["shape"] = shape
    if has_marks:
        hollow = to_hex(line.get_markerfacecolor()) == "#ffffff"
        trace["marker"] = {
            "color": colour,
            "size": max(7, float(line.get_markersize())),
            "symbol": _MARKERS.get(marker, "circle") + "-open" * hollow,
        }
    return trace | _hover([_plain(each) for each in words_of(line)])


def _band(collection: PolyCollection) -> list[Json]:
    traces = []
    for path in collection.get_paths():
        colours, places = np.asarray(collection.get_facecolor()), np.asarray(path.vertices, dtype=float)
        red, green, blue, alpha = map(float, colours[0])
        fill = f"rgba({255 * red:.0f},{255 * green:.0f},{255 * blue:.0f},{alpha:.2f})"
        x, y = ([rounded(each) for each in places[:, side]] for side in (0, 1))
        trace: Json = {"type": "scatter", "mode": "lines", "fill": "toself", "fillcolor": fill, "line": {"width": 0}}
        traces.append(trace | {"x": x, "y": y, "hoverinfo": "skip", "name": "", "showlegend": False})
    return traces


def _picture(image: AxesImage, axes: Axes) -> Json:
    values: Any = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
    low, high = image.get_clim()
    stops = [k / 10 for k in range(11)]
    scale = [[stop, to_hex(image.get_cmap()(stop))] for stop in stops]
    words = {(round(text.get_position()[1]), round(text.get_position()[0])): text for text in axes.texts}
    told = [
        [words[i, j].get_text() if (i, j) in words else "" for j in range(values.shape[1])] for i in range(len(values))
    ]
    names = [_ticks(axes, side) or [""] * values.shape[1 - number] for number, side in enumerate(("x", "y"))]
    pairs = [[f"{down} · {across}" for across in names[0]] for down in names[1]]
    trace: Json = {"type": "heatmap", "z": [[rounded(each) for each in row] for row in values], "name": ""}
    trace |= {"zmin": low, "zmax": high, "colorscale": scale, "text": told, "texttemplate": "%{text}"}
    return trace | {"hovertext": pairs, "hovertemplate": "%{hovertext}<br>%{z:.4~g}<extra></extra>", "showscale": False}


def _axis(axes: Axes, side: str) -> Json:
    own = axes.xaxis if side == "x" else axes.yaxis
    low, high = axes.get_xlim() if side == "x" else axes.get_ylim()
    scale = own.get_scale()
    found: Json = {"title": {"text": _plain(own.get_label().get_text()), "font": {"size": 12}}, "zeroline": False}
    if scale == "log":
        found |= {"type": "log", "range": [float(np.log10(low)), float(np.log10(high))]}
    else:
        found |= {"range": [float(low), float(high)]}
    labels = _ticks(axes, side)
    if labels:
        found |= {"tickvals": [float(each) for each in own.get_ticklocs()], "ticktext": labels, "showgrid": False}
    return found


def _ticks(axes: Axes, side: str) -> list[str]:
    """Words at the ticks, where somebody has written some; numbers are Plotly's to choose."""
    own = axes.xaxis if side == "x" else axes.yaxis
    if not isinstance(own.get_major_locator(), FixedLocator):
        return []
    return [_plain(text) for text in own.get_major_formatter().format_ticks(own.get_ticklocs().tolist())]


def _title(axes: Axes, suffix: str) -> list[Json]:
    text = axes.get_title()
    place = {"xref": f"x{suffix} domain", "yref": f"y{suffix} domain", "x": 0, "y": 1, "yanchor": "bottom"}
    return (
        [{**place, "text": _plain(text), "showarrow": False, "xanchor": "left", "font": {"size": 13}}] if text else []
    )


def _words(axes: Axes, suffix: str) -> list[Json]:
    """What is written at a place in the data, as far beside it as the figure has it."""
    found = []
    texts: list[Any] = [] if axes.images else list(axes.texts)
    for text in texts:
        is_note = isinstance(text, Annotation)
        if not text.get_text() or not (text.xycoords == "data" if is_note else _in_data(text, axes)):
            continue
        x, y = map(float, text.xy if is_note else text.get_position())
        right, up = map(float, text.xyann if is_note else (0, 0))
        at = {"x": np.log10(x) if axes.get_xscale() == "log" and x > 0 else x, "y": y}
        at |= {"xref": f"x{suffix}", "yref": f"y{suffix}", "xanchor": text.get_ha(), "yanchor": "middle"}
        at |= {"text": _plain(text.get_text()), "font": {"size": 11}}
        if is_note and text.arrow_patch is not None:
            found.append({**at, "showarrow": True, "arrowhead": 0, "arrowwidth": 0.7, "ax": right, "ay": -up})
        else:
            found.append({**at, "showarrow": False, "xshift": right, "yshift": up})
    return found


def _across(line: Line2D, axes: Axes) -> tuple[str, float] | None:
    """Of a line across a whole panel the axis that it is at, and where; None of any other."""
    for side, values in zip(("x", "y"), _points_of(line), strict=True):
        if not _in_data(line, axes) and len(values) and (values == values[0]).all():
            return side, float(values[0])
    return None


def _level(line: Line2D, axes: Axes, side: str, at: float) -> Json:
    """A line across a whole panel that has a name, and so a place in the legend."""
    ends = axes.get_ylim() if side == "x" else axes.get_xlim()
    along, place = [rounded(float(each)) for each in ends], [rounded(at)] * 2
    x, y = (place, along) if side == "x" else (along, place)
    return _line(line) | {"x": x, "y": y}


def _levels(axes: Axes, suffix: str) -> list[Json]:
    """Lines without a name across a whole panel, and bands."""
    found: list[Json] = []
    for line in axes.lines:
        across = None if _name(line.get_label()) else _across(line, axes)
        if across is not None:
            side, at = across
            stroke = {"color": to_hex(line.get_color()), "dash": _DASHES.get(str(line.get_linestyle()), "solid")}
            place = _spanning(suffix, side, at, at)
            found.append({"type": "line", "line": {**stroke, "width": 1}, "layer": "below", **place})
    for patch in axes.patches:
        # Up and down it is in the data, and from side to side in the panel.
        is_band = patch.get_data_transform().contains_branch_seperately(axes.transData) == (False, True)
        if not is_band or not isinstance(patch, Rectangle):
            continue
        low, high = float(patch.get_y()), float(patch.get_y() + patch.get_height())
        if np.isfinite([low, high]).all():
            fill = {"fillcolor": to_hex(patch.get_facecolor()), "opacity": float(to_rgba(patch.get_facecolor())[3])}
            place = _spanning(suffix, "y", low, high)
            found.append({"type": "rect", **fill, "line": {"width": 0}, "layer": "below", **place})
    return found


def _spanning(suffix: str, side: str, low: float, high: float) -> Json:
    """From one value of an axis to another, along all of the other axis."""
    other = "x" if side == "y" else "y"
    place: Json = {f"{side}ref": f"{side}{suffix}", f"{side}0": low, f"{side}1": high}
    return place | {f"{other}ref": f"{other}{suffix} domain", f"{other}0": 0, f"{other}1": 1}


def _in_data(artist: Any, axes: Axes) -> bool:
    return bool(artist.get_transform().contains_branch(axes.transData))


def _domain(number: int, count: int) -> list[float]:
    gap = min(0.09, 0.3 / count)
    size = (1 - gap * (count - 1)) / count
    return [round(number * (size + gap), 4), round(number * (size + gap) + size, 4)]


def _name(label: object) -> str:
    """What stands in the legend; names that matplotlib gives begin with `_`."""
    return "" if str(label).startswith("_") else _plain(str(label))


def _plain(text: str) -> str:
    """Text for Plotly, which understands a few tags of HTML: here they are letters."""
    return html.escape(text, quote=False).replace("\n", "<br>")
