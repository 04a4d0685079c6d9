"""Mistakes that a user can mend."""


class UserError(Exception):
    """A fault in what the user gave us: parameters, data, files.

    The message says what is wrong, where, what is allowed and what to do. A command prints it as it
    is, without a traceback, and ends with exit code 2; anything else that is raised is a defect of
    ours and keeps its traceback.
    """
