"""Annotations of a COCO-format file, checked once and held packed.

Everything a sample needs lies in a few numpy arrays instead of millions of Python objects: worker processes
share their pages, and the annotations of an image are a slice.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from ..utils.files import read_json
from .image_headers import DAMAGED, MISSING, read_headers


@dataclass
class Objects:
    """The annotated objects of one image, n of them.

    Attributes:
        boxes: [n, 4] float32, x1 y1 x2 y2 in image pixels.
        classes: [n] int, 0-based; negative ones are a dataset's ignored kinds (KITTI).
        valid: [n] bool; false where the pre-flight check left the object out (its slot stays empty).
        fields: further arrays [n, ...] by annotation key, such as `keypoints`.
    """

    boxes: np.ndarray
    classes: np.ndarray
    valid: np.ndarray
    fields: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass
class AnnotationIndex:
    """N images with A objects, packed; `objects(i)` cuts out one image's.

    Attributes:
        image_ids: [N] int64.
        names: [N] bytes, UTF-8 file names.
        sizes: [N, 2] int32, width and height.
        starts: [N + 1] int64; image i owns the objects `starts[i]:starts[i + 1]`.
        rows: [A] int64; each object's position in the file's list of annotations.
        boxes, classes, valid, fields: as in `Objects`, for all A.
        image_fields: further arrays [N, ...] by image key, such as `calib`.
    """

    image_ids: np.ndarray
    names: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    valid: np.ndarray
    fields: dict[str, np.ndarray]
    image_fields: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.image_ids)

    def objects(self, i: int) -> Objects:
        """The annotated objects of image i."""
        cut = slice(self.starts[i], self.starts[i + 1])
        fields = {name: values[cut] for name, values in self.fields.items()}
        return Objects(self.boxes[cut], self.classes[cut], self.valid[cut], fields)

    def name(self, i: int) -> str:
        """File name of image i."""
        return self.names[i].decode()

    def counts(self) -> np.ndarray:
        """Objects of each image, [N]."""
        return np.diff(self.starts)

    def joined(self, other: 'AnnotationIndex') -> 'AnnotationIndex':
        """The images of both, this one's first; both have the same fields."""
        arrays = {
            f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)])
            for f in dataclasses.fields(self)
            if f.name not in ('starts', 'fields', 'image_fields')
        }
        return AnnotationIndex(
            starts=np.concatenate([self.starts, self.starts[-1] + other.starts[1:]]),
            fields={name: np.concatenate([values, other.fields[name]]) for name, values in self.fields.items()},
            image_fields={
                name: np.concatenate([values, other.image_fields[name]]) for name, values in self.image_fields.items()
            },
            **arrays,
        )

    def select(self, keep: np.ndarray) -> 'AnnotationIndex':
        """The images `keep` (positions, in that order) with their objects."""
        counts = self.counts()[keep]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(self.starts[:-1][keep] - starts[:-1], counts) + np.arange(starts[-1])
        return AnnotationIndex(
            image_ids=self.image_ids[keep],
            names=self.names[keep],
            sizes=self.sizes[keep],
            starts=starts,
            rows=self.rows[rows],
            boxes=self.boxes[rows],
            classes=self.classes[rows],
            valid=self.valid[rows],
            fields={name: values[rows] for name, values in self.fields.items()},
            image_fields={name: values[keep] for name, values in self.image_fields.items()},
        )


class Findings:
    """What the pre-flight check found wrong: counted by kind, the first few named."""

    def __init__(self, source: str):
        self.source = source
        self.names: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, name: Any) -> None:
        """Count one more finding of a kind; `name` says what it is about (an id, a file)."""
        self.names[kind].append(str(name))

    def report(self) -> None:
        """Print a line a kind: how many, and the first five names."""
        for kind, names in self.names.items():
            shown = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
            print(f'data check: {self.source}: {len(names)} {kind}: {shown}')


def read_coco(path: str, **needed: tuple[str, ...]) -> dict:
    """Read a COCO-format file.

    Args:
        path: the file.
        needed: keys that every entry of a list must have, such as `images=('id', 'file_name')`.

    Returns:
        The JSON object; `annotations` and `categories` may be absent in it (test sets have none).

    Raises:
        UserError: it is missing, not JSON, not COCO format, or an entry lacks a key.
    """
    if not Path(path).exists():
        raise UserError(f"annotation file '{path}' is missing: see data/README.md for where datasets lie")
    coco = read_json(path)
    if not isinstance(coco, dict) or not isinstance(coco.get('images'), list):
        raise UserError(
            f"'{path}' is not COCO format: expected an object with the lists images, annotations, categories"
        )
    for key in ('images', 'annotations', 'categories'):
        rows = coco.get(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"'{path}' is not COCO format: '{key}' is not a list of objects")
    for key, names in needed.items():
        for number, row in enumerate(coco.get(key, [])):
            for name in names:
                if name not in row:
                    raise UserError(f"'{path}': number {number} of its {key} has no '{name}'")
    return coco


def build_index(
    path: str,
    image_dir: str,
    class_of: Mapping[int, int],
    fields: Mapping[str, tuple[int, ...]] | None = None,
    image_fields: Mapping[str, tuple[int, ...]] | None = None,
    other_categories: frozenset[int] = frozenset(),
) -> AnnotationIndex:
    """Read, check and pack a COCO-format file.

    Broken input is named and counted; images that cannot be used are left out, objects that cannot keep
    their slot but are marked invalid. Crowds (`iscrowd`) are objects as any other, as published [keep].

    Args:
        path: annotation file.
        image_dir: folder of its images.
        class_of: category id -> 0-based class (or a negative, ignored kind).
        fields: annotation key -> shape of its value, to be packed too; NaN where an annotation has none.
        image_fields: image key -> shape, likewise.
        other_categories: ids that are known, but whose objects are not this dataset's.

    Raises:
        UserError: the file or folder is missing or not COCO format, or no image is left.
    """
    coco = read_coco(path)
    findings = Findings(path)
    images, sizes = usable_images(coco['images'], image_dir, findings)
    if not images:
        findings.report()
        listed = len(coco['images'])
        where = f"of the {listed} that '{path}' lists, which are looked for in '{image_dir}'"
        raise UserError(f'no usable image is left {where}' if listed else f"'{path}' lists no images")
    groups = rows_by_image(coco, images, class_of, other_categories, findings)
    rows = np.array([row for group in groups for row in group], np.int64)
    ordered = [coco['annotations'][row] for row in rows]
    counts = [len(group) for group in groups]
    image_of = np.repeat(np.arange(len(images)), counts)

    boxes = pack(ordered, 'bbox', (4,), np.float64)
    valid = check_boxes(boxes, sizes[image_of], [a.get('id') for a in ordered], findings)
    boxes[:, 2:] += boxes[:, :2]
    further = {key: pack_checked(ordered, key, shape, 'objects', findings) for key, shape in (fields or {}).items()}
    image_facts = {
        key: pack_checked(images, key, shape, 'images', findings) for key, shape in (image_fields or {}).items()
    }
    asked = any(hashable(a.get('category_id')) not in other_categories for a in coco.get('annotations', []))
    if asked and not valid.any():
        findings.report()
        raise UserError(f"no usable object is left of '{path}'")
    findings.report()
    return AnnotationIndex(
        image_ids=np.array([image['id'] for image in images], np.int64),
        names=np.array([image['file_name'].encode() for image in images]),
        sizes=sizes,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rows=rows,
        boxes=boxes.astype(np.float32),
        classes=np.array([class_of[a['category_id']] for a in ordered], np.int32),
        valid=valid,
        fields=further,
        image_fields=image_facts,
    )


def hashable(value: Any) -> Any:
    """An id as it is when it can be one, else its text, so that a strange file is named and not a crash."""
    return value if isinstance(value, (int, str)) else repr(value)


def usable_images(rows: list, image_dir: str, findings: Findings) -> tuple[list[dict], np.ndarray]:
    """The image entries whose files can be read, and their sizes [N, 2]: width, height (the file's if they differ)."""
    if not Path(image_dir).is_dir():
        raise UserError(f"images folder '{image_dir}' is missing")
    images, seen = [], set()
    for row in rows:
        if not isinstance(row.get('id'), int) or not isinstance(row.get('file_name'), str):
            findings.add('images left out, without an integer id or a file_name', row)
        elif row['id'] in seen:
            findings.add('images left out, with an id that another has', row['id'])
        else:
            seen.add(row['id'])
            images.append(row)
    headers = read_headers(image_dir, [image['file_name'] for image in images])
    kept, sizes = [], []
    for image, header in zip(images, headers, strict=True):
        told = (image.get('width'), image.get('height'))
        if header.state == MISSING:
            findings.add('images left out, missing', image['file_name'])
        elif header.state == DAMAGED:
            findings.add('images left out, unreadable or cut short', image['file_name'])
        else:
            size = header.size[::-1] if header.turned else header.size
            if told == header.size:
                size = told
            elif told not in (size, (None, None)):
                findings.add("images whose size differs from the JSON's (the file's is used)", image['file_name'])
            kept.append(image)
            sizes.append(size)
    return kept, np.array(sizes, np.int32).reshape(-1, 2)


def rows_by_image(
    coco: dict,
    images: list[dict],
    class_of: Mapping[int, int],
    other_categories: frozenset[int],
    findings: Findings,
) -> list[list[int]]:
    """Positions in the file's list of the annotations of each image; those that belong to none are named.

    Args:
        coco: the file.
        images: its entries that can be used; annotations of the others go without a word, for the images are named.
        class_of, other_categories: as `build_index` takes them.
    """
    groups: dict[int, list[int]] = {image['id']: [] for image in images}
    known_ids = {hashable(image.get('id')) for image in coco['images']}
    seen: set = set()
    for row, annotation in enumerate(coco.get('annotations', [])):
        image_id, category = (hashable(annotation.get(key)) for key in ('image_id', 'category_id'))
        name = hashable(annotation.get('id', f'at position {row}'))
        if category in other_categories:
            continue
        if image_id not in known_ids:
            findings.add('objects left out, of an unknown image (annotation ids)', name)
        elif category not in class_of:
            findings.add(f'objects left out, of the unknown category {category} (annotation ids)', name)
        elif name in seen:
            findings.add('objects left out, with an id that another has (annotation ids)', name)
        elif image_id in groups:
            groups[image_id].append(row)
        seen.add(name)
    return list(groups.values())


def check_boxes(boxes: np.ndarray, sizes: np.ndarray, ids: list, findings: Findings) -> np.ndarray:
    """Which boxes [A, 4] (x y w h) on images of `sizes` [A, 2] can be used; the others are named."""
    finite = np.isfinite(boxes).all(1)
    with np.errstate(invalid='ignore'):
        filled = (boxes[:, 2:] > 0).all(1)
        inside = (boxes[:, :2] < sizes).all(1) & (boxes[:, :2] + boxes[:, 2:] > 0).all(1)
    for wrong, kind in (
        (~finite, 'boxes left out, missing or not finite'),
        (finite & ~filled, 'boxes left out, empty or negative'),
        (finite & filled & ~inside, 'boxes left out, wholly outside the image'),
    ):
        for i in np.flatnonzero(wrong):
            findings.add(f'{kind} (annotation ids)', ids[i])
    return finite & filled & inside


def pack_checked(rows: list[dict], key: str, shape: tuple[int, ...], kind: str, findings: Findings) -> np.ndarray:
    """`pack`, naming the rows whose value is absent, of another length or not finite."""
    packed = pack(rows, key, shape)
    usable = np.isfinite(packed).all(tuple(range(1, packed.ndim)))
    for i in np.flatnonzero(~usable):
        findings.add(f"{kind} without usable '{key}' ({int(np.prod(shape))} numbers; ids)", rows[i].get('id'))
    return packed


def pack(rows: list[dict], key: str, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """`row[key]` of all rows as one array [n, *shape]; NaN where it is absent or of another length."""
    packed = np.full((len(rows), *shape), np.nan, dtype)
    size = int(np.prod(shape))
    for i, row in enumerate(rows):
        value = row.get(key)
        if value is None:
            continue
        try:
            flat = np.asarray(value, dtype).reshape(-1)
        except (TypeError, ValueError):
            continue
        if flat.size == size:
            packed[i] = flat.reshape(shape)
    return packed
