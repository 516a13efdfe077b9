"""The one place that refuses NaN and infinity in what networks and explainers give."""

from torch import Tensor

from xai.core.errors import UserError

_MOST_NAMED = 5


def check_finite(values: Tensor, what: str, advice: str, rows: Tensor | None = None) -> None:
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
