"""Errors that a user can fix."""


class UserError(Exception):
    """An error in the user's input: parameters, data, files.

    The message says what is wrong, where, what is allowed and what to do. Commands print it without
    a traceback and exit with code 2. Any other exception is a bug of the project and keeps its
    traceback.
    """
