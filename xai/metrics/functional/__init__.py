"""The metrics as pure functions: plain tensors in, one float64 value per image out, NaN where an image has none."""

from xai.metrics.functional.agreement import (
    centred_correlation,
    e_rmse,
    iou_at_k,
    is_constant,
    kendall,
    normalise,
    squared_explanation_error,
)
from xai.metrics.functional.chance import chance_levels
from xai.metrics.functional.localisation import patch_coverage, pointing_game, relevance_mass_accuracy

__all__ = [
    "centred_correlation",
    "chance_levels",
    "e_rmse",
    "iou_at_k",
    "is_constant",
    "kendall",
    "normalise",
    "patch_coverage",
    "pointing_game",
    "relevance_mass_accuracy",
    "squared_explanation_error",
]
