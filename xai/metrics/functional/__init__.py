"""The metrics as pure functions: plain tensors in, one float64 value per image out, NaN where an image has none."""

# ruff: noqa: F401 - what it imports is what it offers

from xai.metrics.functional.agreement import (
    centred_correlation,
    contrast,
    correlation,
    e_rmse,
    expected_iou,
    iou_at_k,
    kendall,
    normalise,
    squared_explanation_error,
)
from xai.metrics.functional.complexity import entropy, gini
from xai.metrics.functional.faithfulness import (
    comprehensiveness,
    infidelity,
    monotonicity,
    monotonicity_of_effects,
    retained,
)
from xai.metrics.functional.imputation import impute
from xai.metrics.functional.localisation import (
    patch_coverage,
    pointing_game,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
)
from xai.metrics.functional.perturbation import (
    Classify,
    PerturbationCurves,
    area,
    enlarge_map,
    perturbation_curves,
    pixel_ranks,
)
from xai.metrics.functional.removal import (
    RemovalCurves,
    Value,
    check_players,
    passes,
    ranked_curves,
    removal_curves,
    scores,
)
from xai.metrics.functional.robustness import relative_change, spearman, structural_similarity
from xai.rounding import is_constant
