"""What a person gets from `method=ranking`: the tables, the claims, the figures, and one page that holds them all."""

from collections.abc import Mapping
from pathlib import Path

from xai.core.runtime import Runtime
from xai.reports import page
from xai.reports.html import Picture
from xai.reports.page import Study
from xai.reports.ranking_claims import CLAIMS
from xai.reports.ranking_figures import DRAWINGS
from xai.reports.ranking_pictures import ShortcutPictures, picture_sheet, refinement_sheet, shortcut_sheet
from xai.reports.ranking_roles import ROLES, SCHEME
from xai.reports.ranking_tables import ALONE, ALONE_TRUE, LOCALISATION, MAIN, ranking_tables
from xai.reports.removal_pictures import Pictures

_TABLES = {
    "Deletion and insertion": MAIN,
    "Each reference alone, predicted class": ALONE,
    "Each reference alone, true class": ALONE_TRUE,
    "Localisation": LOCALISATION,
}
STUDY = Study("Learning to rank pixels", SCHEME, ranking_tables, _TABLES, CLAIMS, DRAWINGS)
_COLOURS = "Red is more than the map's mean, blue less, grey says nothing."


def present(
    runtime: Runtime,
    output: Path,
    pictures: Pictures | None,
    shortcut: ShortcutPictures | None,
    command: str,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Print what a run of ranking and its rivals gave, and write tables, claims, figures and the page into its folder.

    Args:
        runtime: The bench it was made at.
        output: The folder of the run: the rows of the tables lie under `results`, what the figures need besides under
            `refinement`, `steps` and `shortcut`.
        pictures: Images and their maps to show, None for none; Figure 4 takes its maps from the refined rows of them.
        shortcut: Marked images and their maps, None for none.
        command: What was typed.
        notes: What else the page is to keep: by name, its text.

    Raises:
        UserError: There are no results, or what lies there is no table.
    """
    page.present(STUDY, runtime, output, _sheets(pictures, shortcut), command, notes or {})


def _sheets(pictures: Pictures | None, shortcut: ShortcutPictures | None) -> dict[str, Picture]:
    """By the name of their file, in the order of the page."""
    sheets = {}
    if pictures is not None:
        count, rows = len(pictures.images), ", ".join(ROLES[role].label for role in pictures.maps)
        caption = (
            f"Evidence for the class under the image. {_COLOURS} ✓: the classifier is right; where it is wrong (✗), "
            "the map of what it predicts stands above that of the true class."
        )
        refined = refinement_sheet(pictures)
        if refined is not None:
            alt = f"{count} images, each with the maps after 0, 1, 3 and 5 gradient steps."
            sheets["figure4"] = Picture(refined, alt, f"Figure 4. Maps after T gradient steps. {caption}", 460)
        alt = f"{count} images, each with the maps of {rows}."
        sheets["pictures"] = Picture(picture_sheet(pictures), alt, caption, 90 * (len(pictures.maps) + 1))
    if shortcut is not None:
        alt = f"{len(shortcut.images)} images with a white circle, each with its maps after some gradient steps."
        caption = (
            "Figure 5. Images with the mark, which the classifier now says are of the class that the mark was put on, "
            "with maps for that class; below each map "
            f"the share of its attribution on the mark, which is framed. {_COLOURS}"
        )
        sheets["figure5-pictures"] = Picture(shortcut_sheet(shortcut), alt, caption, 560)
    return sheets
