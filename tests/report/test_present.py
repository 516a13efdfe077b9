"""What is made of a frame: verdicts and tables of rows at other settings."""

from tests.report.study_frames import scores
from xai.report.present import tables_of, verdicts
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


def test_a_table_shows_a_row_at_other_settings_where_it_is_named() -> None:
    srg = {"salvage": 0.66, "salvage@0.25": 0.56, "salvage@0.75": 0.65, "vit_shapley": 0.68}
    nothing = frames([])
    measured = Frames(
        scores({row: {"srg": value} for row, value in srg.items()}), nothing.curves, nothing.costs, nothing.left_out
    )
    (table,) = tables_of(measured, "salvage_figure7", {})
    shown = {row.label: round(row.cells[0].mean, 6) for section in table.sections for row in section.rows}
    assert shown == {"SALVAGE, 25 %": 56.0, "SALVAGE": 66.0, "ViT-Shapley": 68.0}
    whole, _ = tables_of(measured, "salvage_table1", {})
    assert [row.name for section in whole.sections for row in section.rows] == ["salvage", "vit_shapley"]
