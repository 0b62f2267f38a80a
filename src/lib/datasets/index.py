"""Annotations of a dataset, checked once and held packed.

Everything a sample needs lies in a few numpy arrays instead of millions of Python objects: worker processes
share their pages, and the annotations of an image are a slice.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.errors import UserError
from ..utils.image import default_max_pixels
from .annotations import Annotations, CocoFile, forget_kept
from .coco_file import collections_paused, finite_numbers, finite_rows, name_of, read_numbers
from .findings import Findings
from .image_headers import (
    DAMAGED,
    MISSING,
    TOO_LARGE,
    folder_state,
    locate_images,
    names_looked_for,
    read_headers,
)
from .remembered import load_packed, remembered_path, save_packed

GROUPS = ('fields', 'image_fields')  # attributes of an index that hold arrays by name
LARGEST_COORDINATE = 1e7  # pixels; further off no arithmetic in float32 holds


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
        names: [N] bytes, file names in the images folder, in the file system's encoding.
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
        """Return the annotated objects of image i."""
        cut = slice(self.starts[i], self.starts[i + 1])
        fields = {name: values[cut] for name, values in self.fields.items()}
        return Objects(self.boxes[cut], self.classes[cut], self.valid[cut], fields)

    def name(self, i: int) -> str:
        """Return the file name of image i."""
        return os.fsdecode(self.names[i])

    def digest(self) -> str:
        """Return a hash of all arrays: equal for equal images and objects."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if 'fields' not in f.name}
        arrays |= self.fields | self.image_fields
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(arrays[name]).data)
        return digest.hexdigest()[:16]

    def counts(self) -> np.ndarray:
        """Return the number of objects of each image, [N]."""
        return np.diff(self.starts)

    def join(self, other: 'AnnotationIndex') -> 'AnnotationIndex':
        """Join the images of both, this one's first; both have the same fields."""
        arrays = {
            f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)])
            for f in dataclasses.fields(self)
            if f.name not in ('starts', *GROUPS)
        }
        return AnnotationIndex(
            starts=np.concatenate([self.starts, self.starts[-1] + other.starts[1:]]),
            fields={name: np.concatenate([values, other.fields[name]]) for name, values in self.fields.items()},
            image_fields={
                name: np.concatenate([values, other.image_fields[name]]) for name, values in self.image_fields.items()
            },
            **arrays,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays [N or A, ...] under one name each."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in GROUPS}
        for group in GROUPS:
            arrays |= {f'{group}.{name}': values for name, values in getattr(self, group).items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> 'AnnotationIndex':
        """Return the index of the arrays [N or A, ...] that `to_arrays` gave; other names are passed over."""
        groups: dict[str, Any] = {
            group: {name.partition('.')[2]: values for name, values in arrays.items() if name.startswith(f'{group}.')}
            for group in GROUPS
        }
        single: dict[str, Any] = {f.name: arrays[f.name] for f in dataclasses.fields(cls) if f.name not in GROUPS}
        return cls(**single, **groups)

    def select(self, keep: np.ndarray) -> 'AnnotationIndex':
        """Select the images at the positions `keep` [n], in that order, with their objects."""
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


@dataclass(frozen=True)
class Choice:
    """Choice of what is packed of annotations: the arguments of `build_index`."""

    image_dir: str
    class_of: Mapping[int, int]
    fields: Mapping[str, tuple[int, ...]]
    image_fields: Mapping[str, tuple[int, ...]]
    other_categories: frozenset[int]
    max_pixels: int

    def place(self, annotations: Annotations) -> Path:
        """Return the cache file of the index of annotations."""
        return remembered_path(
            'index',
            annotations.key(),
            os.path.realpath(self.image_dir),
            *(sorted(each.items()) for each in (self.class_of, self.fields, self.image_fields)),
            sorted(self.other_categories),
            self.max_pixels or default_max_pixels(),
        )


def build_index(
    annotations: Annotations | str,
    image_dir: str,
    class_of: Mapping[int, int],
    fields: Mapping[str, tuple[int, ...]] | None = None,
    image_fields: Mapping[str, tuple[int, ...]] | None = None,
    other_categories: frozenset[int] = frozenset(),
    max_pixels: int = 0,
) -> AnnotationIndex:
    """Read, check and pack annotations, or map what was packed of them before.

    The index is remembered between starts in the user's cache folder (see `remembered.py`), as long as neither one of
    their files nor an image changes: then its arrays are mapped from there, read-only, and all processes of a machine
    share them. Several that start at once with nothing remembered each make it; of ranks, one should come first.

    Broken input is named and counted; images that cannot be used are left out, objects that cannot keep
    their slot but are marked invalid. Crowds (`iscrowd`) are objects as any other, as published [keep].

    Args:
        annotations: the annotations, or the path of a COCO-format file.
        image_dir: folder of the images.
        class_of: category id -> 0-based class (or a negative, ignored kind).
        fields: annotation key -> shape of its value, to be packed too; NaN where an annotation has none.
        image_fields: image key -> shape, likewise.
        other_categories: ids that are known, but whose objects are not this dataset's.
        max_pixels: images of more pixels are left out; 0 for the default of `read_image`.

    Raises:
        UserError: the file or folder is missing or not COCO format, or no image is left.
    """
    if isinstance(annotations, str):
        annotations = CocoFile(annotations)
    choice = Choice(image_dir, class_of, fields or {}, image_fields or {}, other_categories, max_pixels)
    version = annotations.version()
    place = choice.place(annotations)
    known = load_index(place, annotations, image_dir, version) if version else None
    if known:
        forget_kept()
        return known
    with collections_paused():
        return make_index(annotations, choice, place, version)


def make_index(annotations: Annotations, choice: Choice, place: Path, version: list | None) -> AnnotationIndex:
    """Read, check and pack annotations, and remember the index.

    Args:
        annotations: the annotations.
        choice: what is packed.
        place: the cache file.
        version: of the annotations, as `Annotations.version` returns it; None to remember nothing.

    Raises:
        UserError: as `build_index`.
    """
    image_dir = choice.image_dir
    path = annotations.place
    coco, faults = annotations.parse()
    annotations.report(faults)
    if version is None:
        return pack_index(path, coco, choice, Findings(path))
    looked_for = names_looked_for(image_dir, [image['file_name'] for image in coco['images'] if 'file_name' in image])
    state = folder_state(image_dir, looked_for)  # before images are read: what changes from now on will be noticed
    findings = Findings(path)
    index = pack_index(path, coco, choice, findings)
    arrays = index.to_arrays() | {'looked_for': pack_names(looked_for), 'state': state}
    save_packed(place, arrays, {'version': version, 'faults': faults.to_json(), 'findings': findings.to_json()})
    return map_index(place, version) or index


def load_index(place: Path, annotations: Annotations, image_dir: str, version: list) -> AnnotationIndex | None:
    """Map the index that `build_index` has remembered, and log again what was found when it was made.

    Args:
        place: the cache file.
        annotations: the annotations.
        image_dir: folder of the images.
        version: of the annotations, as `Annotations.version` returns it.

    Returns:
        The index, its arrays read-only; None where there is none, it is damaged or of another version, or an image
        file has changed, come or gone.
    """
    known = load_packed(place)
    if known is None or known[1]['version'] != version:
        return None
    arrays, notes = known
    looked_for = [os.fsdecode(name) for name in arrays.pop('looked_for').tolist()]
    if not np.array_equal(folder_state(image_dir, looked_for), arrays.pop('state')):
        return None
    annotations.report(Findings.from_json(annotations.place, notes['faults']))
    Findings.from_json(annotations.place, notes['findings']).report()
    return AnnotationIndex.from_arrays(arrays)


def map_index(place: Path, version: list) -> AnnotationIndex | None:
    """Map the index that this process has just remembered; None where it could not be."""
    known = load_packed(place)
    return AnnotationIndex.from_arrays(known[0]) if known and known[1]['version'] == version else None


def pack_names(names: Sequence[str]) -> np.ndarray:
    """Return file names as bytes [n], in the file system's encoding."""
    return np.array([os.fsencode(name) for name in names])


def pack_index(path: str, coco: dict, choice: Choice, findings: Findings) -> AnnotationIndex:
    """Check and pack annotations, as `build_index` does.

    Args:
        path: their file or folder, for messages.
        coco: their content, as `read_coco` returns it.
        choice: what is packed.
        findings: receives what is left out; it is reported.

    Raises:
        UserError: as `build_index`.
    """
    try:
        return _pack_index(path, coco, choice, findings)
    finally:
        findings.report()


def _pack_index(path: str, coco: dict, choice: Choice, findings: Findings) -> AnnotationIndex:
    images, names, sizes = usable_images(coco['images'], choice.image_dir, findings, choice.max_pixels)
    if not images:
        listed = len(coco['images'])
        where = f"of the {listed} that '{path}' lists, which are looked for in '{choice.image_dir}'"
        raise UserError(f'no usable image is left {where}' if listed else f"'{path}' lists no images")
    rows, order, counts = group_objects(coco, images, choice.class_of, choice.other_categories, findings)
    annotations = [coco['annotations'][row] for row in rows.tolist()]
    rows, image_of = rows[order], np.repeat(np.arange(len(images)), counts)

    def name(i: int) -> str:
        return name_of(annotations[order[i]], rows[i])

    boxes = pack(annotations, 'bbox', (4,), np.float64)[order]
    valid = check_boxes(boxes, sizes[image_of], name, findings)
    boxes[:, 2:] += boxes[:, :2]
    further = {key: pack(annotations, key, shape)[order] for key, shape in choice.fields.items()}
    image_facts = {key: pack(images, key, shape) for key, shape in choice.image_fields.items()}
    for key, values in further.items():
        name_unusable(values, key, 'objects', name, findings)
    for key, values in image_facts.items():
        name_unusable(values, key, 'images', lambda i: images[i]['id'], findings)
    asked = any(annotation.get('category_id') not in choice.other_categories for annotation in coco['annotations'])
    if asked and not valid.any():
        raise UserError(f"no usable object is left of '{path}'")
    return AnnotationIndex(
        image_ids=np.array([image['id'] for image in images], np.int64),
        names=pack_names(names),
        sizes=sizes,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rows=rows,
        boxes=boxes.astype(np.float32),
        classes=np.array([choice.class_of[each['category_id']] for each in annotations], np.int32)[order],
        valid=valid,
        fields=further,
        image_fields=image_facts,
    )


def usable_images(
    rows: list[dict], image_dir: str, findings: Findings, max_pixels: int = 0
) -> tuple[list[dict], list[str], np.ndarray]:
    """Find the images whose files can be read.

    Args:
        rows: the images of a COCO-format file, as `read_coco` returns them.
        image_dir: folder of their files.
        findings: receives the others.
        max_pixels: as `build_index` takes it.

    Returns:
        The usable entries of `rows`; the names of their files in `image_dir`; their sizes (int32 [N, 2], width and
        height; the file's where the entry says otherwise).

    Raises:
        UserError: the folder is missing.
    """
    if not Path(image_dir).is_dir():
        raise UserError(f"images folder '{image_dir}' is missing")
    images = []
    for row in rows:
        if 'file_name' in row:
            images.append(row)
        else:
            findings.add('images left out, without a file_name (ids)', row['id'])
    names = locate_images(image_dir, [image['file_name'] for image in images])
    kept, kept_names, sizes = [], [], []
    for image, name, header in zip(images, names, read_headers(image_dir, names, max_pixels), strict=True):
        stated = (image.get('width'), image.get('height'))
        if header.state == MISSING:
            findings.add('images left out, missing', image['file_name'])
        elif header.state == DAMAGED:
            findings.add('images left out, unreadable or cut short', image['file_name'])
        elif header.state == TOO_LARGE:
            findings.add('images left out, of more pixels than --max_pixels allows', image['file_name'])
        else:
            size = header.size[::-1] if header.turned else header.size
            if stated == header.size:
                size = stated
            elif stated not in (size, (None, None)):
                findings.add("images whose size differs from the JSON's (the file's is used)", image['file_name'])
            if name != image['file_name']:
                findings.add(
                    'images found under another spelling of their file_name', f'{image["file_name"]} as {name}'
                )
            kept.append(image)
            kept_names.append(name)
            sizes.append(size)
    return kept, kept_names, np.array(sizes, np.int32).reshape(-1, 2)


def group_objects(
    coco: dict,
    images: list[dict],
    class_of: Mapping[int, int],
    other_categories: frozenset[int],
    findings: Findings,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group annotations by image; those that belong to none are named.

    Args:
        coco: the file, as `read_coco` returns it.
        images: N entries of it that can be used; annotations of the others are not named, for those images were.
        class_of, other_categories: as `build_index` takes them.

    Returns:
        int64 arrays: the positions [A] in the file's list of the annotations that belong to an image, rising; the order
        [A] that brings these into groups, image by image; the number [N] of each group.
    """
    annotations, learnt = coco['annotations'], class_of.keys() - other_categories
    places = {image['id']: place for place, image in enumerate(images)}
    owners = np.fromiter(
        (places.get(row.get('image_id'), -1) if row.get('category_id') in learnt else -1 for row in annotations),
        np.int64,
        len(annotations),
    )
    known_ids = {image['id'] for image in coco['images']}
    for place in np.flatnonzero(owners < 0).tolist():
        if annotations[place].get('category_id') not in other_categories:
            name_ownerless(annotations[place], place, known_ids, class_of, findings)
    rows = np.flatnonzero(owners >= 0)
    owners = owners[rows]
    return rows, np.argsort(owners, kind='stable'), np.bincount(owners, minlength=len(images))


def name_ownerless(
    annotation: dict, place: int, known_ids: Set[int], class_of: Mapping[int, int], findings: Findings
) -> None:
    """Name an annotation at its place in the file's list, unless all that it lacks is an image that can be used."""
    image_id, category, name = annotation.get('image_id'), annotation.get('category_id'), name_of(annotation, place)
    for key, value in (('image_id', image_id), ('category_id', category)):
        if value is None:
            findings.add(f'objects left out, whose {key} is no integer or text (ids)', name)
    if image_id is None or category is None:
        return
    if image_id not in known_ids:
        findings.add('objects left out, of an unknown image (ids)', name)
    elif category not in class_of:
        findings.add(f'objects left out, of the unknown category {category} (ids)', name)


def check_boxes(boxes: np.ndarray, sizes: np.ndarray, name: Callable[[int], str], findings: Findings) -> np.ndarray:
    """Return whether boxes can be used; the others are named.

    Args:
        boxes: float64 [A, 4], x y w h in image pixels.
        sizes: [A, 2], width and height of their images.
        name: returns the name of an object for messages, given its place.
        findings: receives the boxes that cannot be used.

    Returns:
        bool [A].
    """
    finite = np.isfinite(boxes).all(1)
    with np.errstate(invalid='ignore', over='ignore'):
        filled = (boxes[:, 2:] > 0).all(1)
        inside = (boxes[:, :2] < sizes).all(1) & (boxes[:, :2] + boxes[:, 2:] > 0).all(1)
        held = (np.abs(boxes) < LARGEST_COORDINATE).all(1)
    for wrong, kind in (
        (~finite, 'boxes left out, missing or not finite'),
        (finite & ~filled, 'boxes left out, empty or negative'),
        (finite & filled & ~inside, 'boxes left out, wholly outside the image'),
        (finite & filled & inside & ~held, 'boxes left out, with numbers beyond reason'),
    ):
        for i in np.flatnonzero(wrong).tolist():
            findings.add(f'{kind} (ids)', name(i))
    return finite & filled & inside & held


def name_unusable(packed: np.ndarray, key: str, kind: str, name: Callable[[int], Any], findings: Findings) -> None:
    """Name the entries whose value was absent, of another length or not finite.

    Args:
        packed: the values [n, ...], as `pack` returns them.
        key: of the value.
        kind: the subject of the finding, such as 'objects'.
        name: returns the name of an entry for messages, given its place.
        findings: receives the entries.
    """
    count = int(np.prod(packed.shape[1:]))
    for i in np.flatnonzero(~np.isfinite(packed).all(tuple(range(1, packed.ndim)))).tolist():
        findings.add(f"{kind} without usable '{key}' ({count} numbers; ids)", name(i))


def pack(rows: list[dict], key: str, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Pack `row[key]` of all rows into one array [n, *shape]; NaN where it is absent or of another length."""
    packed: np.ndarray = np.full((len(rows), *shape), np.nan, dtype)
    size = int(np.prod(shape))
    values = [row.get(key) for row in rows]
    usable = [i for i, value in enumerate(values) if value is not None]
    values = [values[i] for i in usable] if len(usable) < len(values) else values
    numbers = finite_numbers(values) if shape == () else finite_rows(values, size)
    if numbers is None:
        read = [read_numbers([value] if shape == () else value, size) for value in values]
        usable = [i for i, flat in zip(usable, read, strict=True) if flat is not None]
        numbers = np.array([flat for flat in read if flat is not None], np.float64)
    packed[usable] = numbers.reshape(-1, *shape)
    return packed
