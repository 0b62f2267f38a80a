"""KITTI's text files: labels (what is in a frame) and results (what was found), one object a line."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from ..utils.files import atomic_path, read_text
from .index import Findings

CATEGORIES = ['Pedestrian', 'Car', 'Cyclist', 'Van', 'Truck', 'Person_sitting', 'Tram', 'Misc', 'DontCare']
# The values that the files give of an object that is only marked in the image, such as a DontCare area.
UNKNOWN: dict[str, Any] = {
    'truncated': -1,
    'occluded': -1,
    'alpha': -10,
    'dim': [-1] * 3,
    'location': [-1000] * 3,
    'rotation_y': -10,
}
NO_ORIENTATION = -10  # the alpha of a detector that does not estimate orientation
LABEL_FIELDS, RESULT_FIELDS = 15, 16  # on a line; a result's last one is its score

UNREADABLE = 'lines left out, cut short or not numbers'

# Columns of a label after its class name.
TRUNCATED, OCCLUDED, ALPHA = 0, 1, 2
BOX, DIMS, LOCATION = slice(3, 7), slice(7, 10), slice(10, 13)  # x1 y1 x2 y2 | h w l | x y z, y at the bottom
ROTATION, SCORE = 13, 14


@dataclass
class LabelLines:
    """The lines of one label or result file. `types`: lower-case class names [N]; `rows`: float64 [N, 15]."""

    types: np.ndarray
    rows: np.ndarray


def read_lines(path: Path, num_fields: int, findings: Findings) -> LabelLines:
    """Read a KITTI label or result file; lines that cannot be used are named in `findings`.

    Args:
        path: the file.
        num_fields: `LABEL_FIELDS` or `RESULT_FIELDS`; further fields of a line are left out.

    Returns:
        the lines, class names in lower case; the score of a label is 0.
    """
    types, rows = [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            row = [float(field) for field in fields[1:num_fields]]
        except ValueError:
            row = []
        if len(row) < num_fields - 1 or not np.isfinite(row).all():
            findings.add(UNREADABLE, f'{path}:{number}')
            continue
        types.append(fields[0].lower())
        rows.append(row + [0.0] * (LABEL_FIELDS - len(row)))
    return LabelLines(np.array(types, dtype=str), np.array(rows, dtype=np.float64).reshape(-1, LABEL_FIELDS))


def read_frames(folder: Path, names: Sequence[str], num_fields: int) -> list[LabelLines]:
    """Read files of a folder, and name the lines that cannot be used.

    Raises:
        UserError: there are lines, and none can be used.
    """
    findings = Findings(str(folder))
    frames = [read_lines(folder / name, num_fields, findings) for name in names]
    findings.report()
    broken = findings.names.get(UNREADABLE, [])
    if broken and not any(len(frame.rows) for frame in frames):
        raise UserError(
            f"no line of the {len(frames)} files in '{folder}' can be read: expected {num_fields} fields separated by "
            f'spaces, a class name and {num_fields - 1} numbers (first {broken[0]})'
        )
    return frames


def label_line(name: str, annotation: Mapping, decimals: int = 2) -> str:
    """Format an annotation (COCO's, with KITTI's facts, those unknown left out) as the 15 fields of a label."""
    facts = {**UNKNOWN, **annotation}
    x, y, w, h = facts['bbox']
    numbers = [facts['alpha'], x, y, x + w, y + h, *facts['dim'], *facts['location'], facts['rotation_y']]
    words = [field_name(name), f'{facts["truncated"]:.{decimals}f}', str(int(facts['occluded']))]
    return ' '.join(words + [f'{number:.{decimals}f}' for number in numbers])


def result_line(name: str, row: np.ndarray) -> str:
    """Format a row [13] of alpha, box, h, w, l, location, rotation_y, score as the 16 fields of a result."""
    return f'{field_name(name)} 0.0 0 ' + ' '.join(f'{value:.2f}' for value in row[:12]) + f' {row[12]:.9g}'


def field_name(name: str) -> str:
    """Return a class name as one word: fields are separated by spaces."""
    return '_'.join(name.split())


def write_results(folder: Path, results: Mapping[int, Mapping[int, np.ndarray]], names: Sequence[str]) -> int:
    """Write `{image_id: {1-based class: rows [n, 13]}}` as `folder/IMAGE_ID.txt`, 6 digits; returns the lines' number.

    An image without detections gets an empty file: it was processed. Files of earlier results go.
    """
    lines = {
        image_id: [result_line(names[cls - 1], row) for cls, rows in by_class.items() for row in rows]
        for image_id, by_class in results.items()
    }
    write_frames(folder, lines)
    return sum(map(len, lines.values()))


def write_labels(folder: Path, coco: Mapping) -> None:
    """Write the annotations of a COCO dict with KITTI's facts as label files `folder/IMAGE_ID.txt`."""
    names = {category['id']: category['name'] for category in coco['categories']}
    lines: dict[int, list[str]] = defaultdict(list, {image['id']: [] for image in coco['images']})
    for annotation in coco['annotations']:
        lines[annotation['image_id']].append(label_line(names[annotation['category_id']], annotation, decimals=6))
    write_frames(folder, lines)


def write_frames(folder: Path, lines: Mapping[int, Sequence[str]]) -> None:
    """Write each frame's lines as `folder/NNNNNN.txt`, and remove the .txt files of other frames."""
    files = {folder / f'{frame:06d}.txt': of_frame for frame, of_frame in lines.items()}
    for path in set(folder.glob('*.txt')) - files.keys():
        path.unlink()
    for path, of_frame in files.items():
        write_text(path, ''.join(f'{line}\n' for line in of_frame))


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as beside:
        beside.write_text(text)
