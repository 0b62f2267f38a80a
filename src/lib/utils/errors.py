"""The user's mistakes, told in one line."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's (a wrong path, a broken file, options that contradict each other).

    The message is one line: what was expected, what was found, what to do. The command-line programs
    print it and exit with status 1; whoever imports the library catches it.
    """


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`"; did you mean 'coco'?"` when a valid name is near `name`, else an empty string."""
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ''
