"""Values of single images, a file for each metric, which a page loads when somebody asks for that metric.

A browser lets a page from the disk read no data beside it, but run scripts: each file is a call of one function with
JSON, and holds nothing else.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jinja2.utils import htmlsafe_json_dumps

from xai.metrics.registry import Column
from xai.study.columns import scale

_DIGITS = 5
"""Of a value; its mean, in the page, has been made of all of them."""


def chunks(scores: pd.DataFrame, columns: dict[str, Column]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Metrics that have values of single images, each with what its file holds.

    Args:
        scores: Of one run, one line for explainer x metric x image.
        columns: What is known of the metrics, by name.

    Yields:
        The metric, and its content: `images`, rows of the split; `rows`, by explainer a value for each image, in the
        unit that is shown, null where there is none.
    """
    single = scores[scores["image"] >= 0] if len(scores) else scores
    for metric, lines in single.groupby("metric", sort=False) if len(single) else ():
        # Asked in several cases, such as with several sources, an image has its first value here.
        table = lines.pivot_table(index="image", columns="explainer", values="value", aggfunc="first", dropna=False)
        times = scale(columns[str(metric)]) if metric in columns else 1.0
        rows = {str(name): [rounded(each * times, _DIGITS) for each in table[name].astype(float)] for name in table}
        if any(value is not None for values in rows.values() for value in values):
            yield str(metric), {"images": [int(image) for image in table.index], "rows": rows}


def as_script(name: str, content: Any) -> bytes:
    """A file that hands `content` over under a name, when a page runs it."""
    return f"site.take({as_json(name)}, {as_json(content)});\n".encode()


def as_json(content: Any) -> str:
    """JSON that is the same inside a page and a script: nothing in it ends an element or a line of code."""
    return htmlsafe_json_dumps(content, separators=(",", ":"), allow_nan=False)


def rounded(value: float, digits: int = 6) -> float | None:
    """A number of JSON's with so many digits; null where there is none."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None
