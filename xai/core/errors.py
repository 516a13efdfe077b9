"""The one kind of error a user is meant to read, the check for NaN, and the error that says: come back later."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Not at run time: a wrong word on the command line is told before torch is imported.
    from torch import Tensor

_MOST_NAMED = 5


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one line: what is wrong, then what would be right. The entry point prints it without a traceback.
    """


class Busy(Exception):  # noqa: N818 - no error: somebody else is at it
    """Another process is making what is wanted, and the caller said that it has other things to do meanwhile."""


def visible(text: str) -> str:
    """Text from anywhere as a terminal may have it: what would steer the terminal, or is no character, is spelt out."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def check_finite(values: "Tensor", what: str, advice: str, rows: "Tensor | None" = None) -> None:
    """Refuse NaN and infinity.

    Args:
        values: [B, ...].
        what: What they are, as in `the maps of rise`.
        advice: What would be right.
        rows: Numbers [B] that the images of the batch have for the user.

    Raises:
        UserError: As said; the line names the rows.
    """
    if not values.numel():
        return
    broken = ~values.detach().flatten(1).isfinite().all(1).cpu()
    if not broken.any():
        return
    if rows is not None:
        bad = rows.cpu()[broken].tolist()
        more = f" and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else ""
        what += f" of rows {', '.join(map(str, bad[:_MOST_NAMED]))}{more}"
    raise UserError(f"{what} hold NaN or infinity: {advice}")
