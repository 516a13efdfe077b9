"""The one kind of error a user is meant to read."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one line: what is wrong, then what would be right. The entry point prints it without a traceback.
    """
