"""KITTI's text files: labels (what is in a frame) and results (what was found), one object a line."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..utils.files import atomic_path

CATEGORIES = ['Pedestrian', 'Car', 'Cyclist', 'Van', 'Truck', 'Person_sitting', 'Tram', 'Misc', 'DontCare']
# What the files say of an object that is only marked in the image, such as a DontCare area.
UNKNOWN = {'truncated': -1, 'occluded': -1, 'alpha': -10, 'dim': [-1] * 3, 'location': [-1000] * 3, 'rotation_y': -10}


def label_line(name: str, annotation: Mapping, decimals: int = 2) -> str:
    """An annotation (COCO's format with KITTI's facts, those unknown left out) as the 15 fields of a label."""
    facts = UNKNOWN | annotation
    x, y, w, h = facts['bbox']
    numbers = [facts['alpha'], x, y, x + w, y + h, *facts['dim'], *facts['location'], facts['rotation_y']]
    words = [field_name(name), f'{facts["truncated"]:.{decimals}f}', str(int(facts['occluded']))]
    return ' '.join(words + [f'{number:.{decimals}f}' for number in numbers])


def result_line(name: str, row: np.ndarray) -> str:
    """A row [13] of alpha, box, h, w, l, location, rotation_y, score as the 16 fields of a result; score in full."""
    return f'{field_name(name)} 0.0 0 ' + ' '.join(f'{value:.2f}' for value in row[:12]) + f' {row[12]:.9g}'


def field_name(name: str) -> str:
    """A class name as one word: fields are separated by spaces."""
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
