"""What rows may be called: as their files, or so that the name says in what they differ from one that has a file."""

import re

from xai.core.composing import choices

POOLED = "_pooled"
"""What the name of any row of pixels may end in: its maps averaged within patches."""
BUDGET = re.compile(r"(?P<of>.+)_(?P<number>[1-9][0-9]*)")
"""What the name of any row that asks about perturbed images may end in: `kernel_shap_64` asks about 64."""


def stem(name: str) -> str:
    """The row whose file a name is about: that of its own name, or the one that it is in patches, or of a budget."""
    if name in choices("explainer"):
        return name
    if name.endswith(POOLED):
        return stem(name.removesuffix(POOLED))
    budget = BUDGET.fullmatch(name)
    return stem(budget["of"]) if budget else name
