"""What is made of a frame: verdicts of rows at other settings."""

from tests.report.study_frames import scores
from xai.report.present import verdicts
from xai.study.frame import Frames, frames


def test_a_claim_compares_a_row_at_other_settings_where_it_is_named() -> None:
    measured = scores(
        {
            "proposed": {"e_rmse": 0.9, "accuracy": 0.9},
            "ft_target": {"e_rmse": 1.6, "accuracy": 0.92},
            "proposed@lambda2=0.4": {"e_rmse": 1.2, "accuracy": 0.91},
            "proposed@lambda2=0.8": {"e_rmse": 0.8, "accuracy": 0.9},
            "proposed@lambda2=1": {"e_rmse": 0.7, "accuracy": 0.8},
        }
    )
    nothing = frames([])
    found = verdicts(Frames(measured, nothing.curves, nothing.costs, nothing.left_out), ["vectors", "vectors_figure3"])
    of_lambda = found[found["paper"] == "Figure 3"].set_index("metric")["verdict"]
    # .12 below the accuracy of ft target, where 5 points are allowed.
    assert dict(of_lambda) == {"e_rmse": "holds", "accuracy": "does not hold"}
    unnamed = found[found["paper"] == "Table 1"]
    assert not unnamed[["above", "below"]].stack().str.contains("@").any()
