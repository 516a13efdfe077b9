"""What explainers share that are made from another row's: whose maps, and what is refused before any work."""

from dataclasses import KW_ONLY

from xai.core.errors import UserError
from xai.core.settings import settings
from xai.explainers.registry import Context, ExplainerParams, Row, refusal


@settings
class OfRowParams(ExplainerParams):
    """Whose maps.

    Args:
        of: The row.
    """

    _: KW_ONLY
    of: str


def row_of(context: Context, of: str, asked: str) -> Row:
    """The other row.

    Args:
        context: What is prepared.
        of: Its name.
        asked: What is made from it, in the words of a message.

    Raises:
        UserError: It gives no maps, or does not fit the classifier or the data set; nothing is trained to know.
    """
    row = context.row(of)
    if row.entry.info.kind == "classifier":
        raise UserError(f"{asked}: of={of} gives no maps: name a row that explains")
    if reason := refusal(row.entry, row.params, context):
        raise UserError(f"{asked} is made from {of}, which cannot be had here: {reason}")
    return row


def row_by_class(context: Context, of: str, asked: str) -> Row:
    """The other row, as of `row_of`, where its maps are of a class.

    Raises:
        UserError: They are the same for every class, or cannot be had.
    """
    row = row_of(context, of, asked)
    if not row.entry.info.class_specific:
        raise UserError(f"{asked}: the maps of {of} are the same for every class")
    return row
