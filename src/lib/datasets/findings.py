"""Bad data that was found and survived: counted by kind, the first few named."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

SHOWN, LONGEST = 5, 160  # names of a kind that a report shows, and characters of each


class Findings:
    """Bad data that was found in `source`, by kind.

    Attributes:
        counts: number of findings by kind.
        names: the first names of each kind, as many as a report shows.
        remarks: lines about the source as a whole, which a report gives first.
    """

    def __init__(self, source: str):
        self.source = source
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = defaultdict(list)
        self.remarks: list[str] = []

    def add(self, kind: str, name: Any) -> None:
        """Count one more finding of a kind; `name` is what it is about (an id, a file)."""
        self.counts[kind] += 1
        if len(self.names[kind]) < SHOWN:
            self.names[kind].append(printable(name))

    def take(self, other: 'Findings', ending: str) -> None:
        """Add the findings of another source, whose kinds get an ending that says which."""
        for kind, count in other.counts.items():
            self.counts[kind + ending] += count
            self.names[kind + ending] = (self.names[kind + ending] + other.names[kind])[:SHOWN]

    def remark(self, line: str) -> None:
        """Add a line about the source as a whole."""
        self.remarks.append(line)

    def count(self) -> int:
        """Return the number of findings of all kinds."""
        return sum(self.counts.values())

    def lines(self) -> list[str]:
        """Return the remarks, and a line for each kind: how many, and the first five names."""
        lines = [*self.remarks]
        for kind, count in self.counts.items():
            shown = ', '.join(self.names[kind]) + (', ...' if count > SHOWN else '')
            lines.append(f'data check: {printable(self.source)}: {count} {printable(kind)}: {shown}')
        return lines

    def report(self) -> None:
        """Log all lines."""
        for line in self.lines():
            logger.warning('%s', line)

    def to_json(self) -> dict:
        """Return what a report needs as JSON holds it."""
        return {'counts': self.counts, 'names': self.names, 'remarks': self.remarks}

    @classmethod
    def from_json(cls, source: str, value: Mapping) -> 'Findings':
        """Return findings whose report is that of the ones whose `to_json` gave `value`."""
        findings = cls(source)
        findings.counts.update(value['counts'])
        findings.names.update(value['names'])
        findings.remarks.extend(value['remarks'])
        return findings


def printable(value: Any) -> str:
    """Return the value's text on one line, cut where it is long, with escapes for what no terminal can print."""
    text = ' '.join(str(value)[: 2 * LONGEST].split())
    text = text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'
    return text.encode('utf-8', 'backslashreplace').decode()
