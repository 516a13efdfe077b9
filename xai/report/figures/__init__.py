"""Figures as functions of frames; `draw` makes one, `draw_all` what a study lists, `save` writes them."""

from xai.report.figures import budget, comparisons, lines, pairs  # noqa: F401 - they register what they draw
from xai.report.figures.registry import Drawn, Info, Source, draw, draw_all, figure, names, open_figure
from xai.report.figures.style import Line, save, to_bytes

__all__ = ["Drawn", "Info", "Line", "Source", "draw", "draw_all", "figure", "names", "open_figure", "save", "to_bytes"]
