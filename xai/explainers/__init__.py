"""Explainers: whatever maps images and target classes to attributions.

The package can be called: `xai.explainers(model)` lists what there is and what fits a model.
"""

from xai.core.calling import make_callable

make_callable(__name__)
