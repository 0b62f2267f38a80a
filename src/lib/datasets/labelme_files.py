"""labelme's files: one JSON an image, whose shapes become boxes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from ..utils.errors import UserError
from ..utils.files import read_json
from .coco_file import read_number, read_numbers
from .conversion import AnnotatedImage, Tally, add_object, headers_of, measure_image

EXPECTED_FILE = 'labelme JSON with `shapes` and `imagePath`, beside its image'
EXPECTED_SHAPE = 'shapes with a label and points: rectangles, polygons, circles, ...'
POINTS_OF_CIRCLE = 2  # its centre, and one on its edge


def is_labelme(content: Any) -> bool:
    """Return whether the content of a JSON file is labelme's."""
    return isinstance(content, dict) and isinstance(content.get('shapes'), list)


def read_file(path: Path, files: Tally) -> dict | None:
    """Read a JSON file; None, and a finding, if it is broken or not labelme's."""
    try:
        content = read_json(path, files.findings.remark)
    except (UserError, OSError) as error:
        files.lose('JSON files left out, broken', f'{path.name} ({error})')
        return None
    if not is_labelme(content):
        files.lose("JSON files left out, not labelme's", path.name)
        return None
    return content


def image_of(path: Path, content: Mapping, folder: Path) -> Path | None:
    """Find the image of a JSON file: by its `imagePath`, seen from the file, by that name beside it or in `images`.

    Args:
        path: the JSON file.
        content: its content.
        folder: the dataset's.
    """
    stated = content.get('imagePath')
    places = []
    if isinstance(stated, str) and stated.strip() and '\0' not in stated:
        name = PureWindowsPath(stated.strip())  # understands both kinds of slash
        places = [path.parent / name.as_posix(), path.parent / name.name, folder / 'images' / name.name]
    return next((place.resolve() if '..' in place.parts else place for place in places if place.is_file()), None)


def read_folder(json_files: Sequence[Path], folder: Path, files: Tally, shapes: Tally) -> dict[Path, AnnotatedImage]:
    """Read the usable images of labelme's files.

    Args:
        json_files: the files.
        folder: the dataset's.
        files, shapes: count files and shapes.

    Returns:
        The images by the path of their JSON file.
    """
    contents: dict[Path, dict] = {}
    images: dict[Path, Path] = {}
    for path in json_files:
        content = read_file(path, files)
        if content is None:
            continue
        image = image_of(path, content, folder)
        if image is None:
            files.lose('JSON files left out, without their image', path.name, f'imagePath {content.get("imagePath")}')
        elif image in images.values():
            files.lose('JSON files left out, of an image that another describes', path.name)
        else:
            contents[path], images[path] = content, image
    headers = headers_of(folder, list(images.values()))
    usable = {}
    for path, content in contents.items():
        header = headers[images[path]]
        measured = measure_image(images[path], files.findings, stated_size(content), upright=True, header=header)
        if measured is None:
            files.lose('JSON files left out, of an image that cannot be used', path.name)
            continue
        files.use()
        read_shapes(path, content['shapes'], measured, shapes)
        usable[path] = measured
    return usable


def stated_size(content: Mapping) -> tuple[int, int] | None:
    """Return `imageWidth` and `imageHeight`; None where they are absent or no numbers over 0."""
    width, height = (read_number(content.get(key)) for key in ('imageWidth', 'imageHeight'))
    return (int(width), int(height)) if width and height and min(width, height) > 0 else None


def read_shapes(path: Path, shapes: Sequence, image: AnnotatedImage, tally: Tally) -> None:
    """Give an image the objects of its shapes; shapes of one label and `group_id` are parts of one object."""
    boxes: dict[Any, list[float]] = {}
    for number, shape in enumerate(shapes, start=1):
        place = f'{path.name}, shape {number}'
        label = label_of(shape)
        box = box_of(shape) if label else None
        if not label or box is None:
            kind = shape.get('shape_type') if isinstance(shape, dict) else None
            tally.lose('shapes left out, without a label or points that span a box', place, f'{kind} {label or ""}')
            continue
        group = shape.get('group_id')
        key = (label, number, None) if group is None else (label, None, str(group))
        if key in boxes:
            tally.use()
            box = [*map(min, boxes[key][:2], box[:2]), *map(max, boxes[key][2:], box[2:])]
        boxes[key] = box
    for (label, number, group), box in boxes.items():
        place = f'{path.name}, shape {number}' if group is None else f'{path.name}, group {group}'
        add_object(image, label, box, tally, place, f'{label} {box}')


def label_of(shape: Any) -> str:
    """Return the label of a shape; '' without one."""
    label = shape.get('label') if isinstance(shape, dict) else None
    return ' '.join(label.split()) if isinstance(label, str) else ''


def box_of(shape: Mapping) -> list[float] | None:
    """Return the box x1 y1 x2 y2 round a shape; None where its points span none.

    A circle is its centre and a point of its edge; rectangles, polygons, lines and masks are spanned by their points.
    """
    numbers = read_numbers(shape.get('points'))
    if numbers is None or len(numbers) < 4 or len(numbers) % 2:
        return None
    xs, ys = numbers[::2], numbers[1::2]
    if shape.get('shape_type') == 'circle' and len(xs) == POINTS_OF_CIRCLE:
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        return [xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius]
    return [min(xs), min(ys), max(xs), max(ys)]
