"""The user's mistakes, each in one line."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's (a wrong path, a broken file, options that contradict each other).

    The message is one line: what was expected, what was found, what to do. The command-line programs
    print it and exit with status 1; whoever imports the library catches it.
    """


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return `"; did you mean 'coco'?"` when a valid name is near `name`, else an empty string.

    Near are the shortest name that `name` is the beginning of, one of the same letters in another order, and one that
    differs in few of its letters. Dashes in front of options do not count: they would make all of them alike.
    """
    bare = {option.lstrip('-'): option for option in valid}
    word = name.lstrip('-')
    longer = sorted((option for option in bare if len(word) > 2 and option.startswith(word)), key=len)
    swapped = [option for option in bare if sorted(option) == sorted(word)]
    near = longer or swapped or difflib.get_close_matches(word, list(bare), n=1, cutoff=0.8)
    return f"; did you mean '{bare[near[0]]}'?" if near else ''
