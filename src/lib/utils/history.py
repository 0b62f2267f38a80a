"""The table of a run, `metrics.csv`: a row an epoch."""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path

from .files import atomic_path

logger = logging.getLogger(__name__)

EPOCH = 'epoch'


class History:
    """Rows of values by epoch, kept in a CSV file that is written whole after each change.

    Args:
        path: the file. One that is there is gone on with.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: dict[int, dict[str, str]] = {}
        if path.is_file():
            self.read()

    def read(self) -> None:
        """Read the rows of an earlier part of the run; what is no such row is left out, and counted."""
        with open(self.path, newline='', encoding='utf-8', errors='replace') as file:
            rows = list(csv.DictReader(file, restval=''))
        for row in rows:
            epoch = row.pop(EPOCH, '') or ''
            if epoch.isascii() and epoch.isdecimal():
                self.rows[int(epoch)] = {name: value for name, value in row.items() if name and value}
        if len(self.rows) < len(rows):
            logger.warning("note: '%s': %d rows without an epoch are left out", self.path, len(rows) - len(self.rows))

    def add(self, epoch: int, values: Mapping[str, float], begins: bool = False) -> None:
        """Add values to the row of an epoch, and write the file.

        Args:
            epoch: its number.
            values: by column; a column of a new name is appended.
            begins: the epoch was trained (again): its row, and those of later epochs, are of another past.
        """
        if begins:
            self.rows = {number: row for number, row in self.rows.items() if number < epoch}
        row = self.rows.setdefault(epoch, {})
        row.update({name: f'{value:.7g}' for name, value in values.items()})
        columns = dict.fromkeys(name for each in self.rows.values() for name in each)
        with atomic_path(self.path) as beside, open(beside, 'w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, [EPOCH, *columns], restval='')
            writer.writeheader()
            writer.writerows({EPOCH: number} | self.rows[number] for number in sorted(self.rows))
