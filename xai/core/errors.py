"""The one kind of error a user is meant to read, and the one that says: come back later."""


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
