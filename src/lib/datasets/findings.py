"""Bad data that was found and survived: counted by kind, the first few named."""

import logging
from collections import defaultdict
from typing import Any

logger = logging.getLogger(__name__)

SHOWN, LONGEST = 5, 160  # names of a kind that a report shows, and characters of each


class Findings:
    """Bad data that was found in `source`, by kind."""

    def __init__(self, source: str):
        self.source = source
        self.names: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, name: Any) -> None:
        """Count one more finding of a kind; `name` is what it is about (an id, a file)."""
        self.names[kind].append(printable(name))

    def count(self) -> int:
        """Return the number of findings of all kinds."""
        return sum(map(len, self.names.values()))

    def report(self) -> None:
        """Log a line for each kind: how many, and the first five names."""
        for kind, names in self.names.items():
            shown = ', '.join(names[:SHOWN]) + (', ...' if len(names) > SHOWN else '')
            logger.warning('data check: %s: %d %s: %s', printable(self.source), len(names), printable(kind), shown)


def printable(value: Any) -> str:
    """Return the value's text on one line, cut where it is long, with escapes for what no terminal can print."""
    text = ' '.join(str(value)[: 2 * LONGEST].split())
    text = text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'
    return text.encode('utf-8', 'backslashreplace').decode()
