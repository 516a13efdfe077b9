"""What a person gets from `method=salvage`: the tables, the claims, the figures, and one page that holds them all."""

from collections.abc import Mapping
from pathlib import Path

from xai.core.runtime import Runtime
from xai.reports import page
from xai.reports.html import Picture
from xai.reports.page import Study
from xai.reports.removal_claims import CLAIMS
from xai.reports.removal_figures import DRAWINGS
from xai.reports.removal_pictures import Pictures, picture_sheet
from xai.reports.removal_roles import ROLES, SCHEME
from xai.reports.removal_tables import CLASSIFICATION, DRAWN, FAITHFULNESS, POINTING, RANKED, removal_tables

_TABLES = {
    "Faithfulness and localisation": (*FAITHFULNESS, *POINTING),
    "Least and most influential first": (*RANKED, *DRAWN),
    "The explainer as a classifier": CLASSIFICATION,
}
"""Tables 1 to 4 of the paper; 2 and 3 are one here."""
STUDY = Study("Explanations by removal", SCHEME, removal_tables, _TABLES, CLAIMS, DRAWINGS)


def present(
    runtime: Runtime, output: Path, pictures: Pictures | None, command: str, notes: Mapping[str, str] | None = None
) -> None:
    """Print what a run of SALVAGE and its rivals gave, and write tables, claims, figures and the page into its folder.

    Args:
        runtime: The bench it was made at.
        output: The folder of the run; its rows lie under `results`, those trained for a share of the time under
            `length`.
        pictures: Images and their maps to show, None for none.
        command: What was typed.
        notes: What else the page is to keep: by name, its text.

    Raises:
        UserError: There are no results, or what lies there is no table.
    """
    sheets = {} if pictures is None else {"pictures": _sheet(pictures)}
    page.present(STUDY, runtime, output, sheets, command, notes or {})


def _sheet(pictures: Pictures) -> Picture:
    rows = ", ".join(ROLES[role].label for role in pictures.maps)
    alt = f"{len(pictures.images)} images, each with the maps of {rows}."
    caption = (
        "Evidence for the class under the image: red is more than the map's mean, blue less, grey says nothing. ✓: the "
        "classifier is right; where it is wrong (✗), the map of what it predicts stands above that of the true class. "
        "Attention and Eigen-CAM know no classes and give the same map twice."
    )
    return Picture(picture_sheet(pictures), alt, caption, 90 * (len(pictures.maps) + 1))
