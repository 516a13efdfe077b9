"""Figures as functions of frames; `draw` makes one, `draw_all` what a study lists, `save` writes them."""

from xai.report.figures.registry import Column, Drawn, Info, Source, draw, draw_all, figure, names, open_figure, preset
from xai.report.figures.style import Line, save, to_bytes

__all__ = [
    "Column",
    "Drawn",
    "Info",
    "Line",
    "Source",
    "draw",
    "draw_all",
    "figure",
    "names",
    "open_figure",
    "preset",
    "save",
    "to_bytes",
]
