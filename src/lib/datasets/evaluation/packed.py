"""Results and detections of a whole dataset as a few arrays, where Python objects would take ten times the memory."""

from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np


@dataclass
class PackedDetections(Sequence[dict]):
    """COCO's list of detections; `self[i]` makes the dict of the i-th.

    Attributes:
        image_ids, category_ids: [n] int64.
        boxes: [n, 4] float64, x y w h in image pixels.
        scores: [n] float64.
        further: values [n] or [n, k] float64 by key, such as `keypoints`.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    further: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, i: int) -> dict: ...

    @overload
    def __getitem__(self, i: slice) -> list[dict]: ...

    def __getitem__(self, i: int | slice) -> dict | list[dict]:
        if isinstance(i, slice):
            return [self[each] for each in range(*i.indices(len(self)))]
        return {
            'image_id': int(self.image_ids[i]),
            'category_id': int(self.category_ids[i]),
            'bbox': self.boxes[i].tolist(),
            'score': float(self.scores[i]),
            **{name: values[i].tolist() for name, values in self.further.items()},
        }

    def select(self, keep: np.ndarray) -> 'PackedDetections':
        """Select the detections at the positions `keep` [m]."""
        further = {name: values[keep] for name, values in self.further.items()}
        return PackedDetections(
            self.image_ids[keep], self.category_ids[keep], self.boxes[keep], self.scores[keep], further
        )

    def suspects(self, images: Collection[int], categories: Collection[int], wanted: Mapping[str, int]) -> list[int]:
        """Return the positions of the detections that may be unusable.

        Args:
            images, categories: the known ids.
            wanted: `{key: count}`, the finite numbers that a detection must have.
        """
        good = np.isin(self.image_ids, list(images)) & np.isin(self.category_ids, list(categories))
        columns = {'bbox': self.boxes, 'score': self.scores, **self.further}
        for key, count in wanted.items():
            values = columns.get(key, np.empty((len(self), 0))).reshape(len(self), -1)  # [n, count]
            good &= np.isfinite(values).all(1) & (values.shape[1] == count)
        return np.flatnonzero(~good).tolist()


def join(parts: Sequence[PackedDetections]) -> PackedDetections:
    """Join detections [n each] with the same keys into one list."""
    if not parts:
        return PackedDetections(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
    return PackedDetections(
        np.concatenate([part.image_ids for part in parts]),
        np.concatenate([part.category_ids for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        {name: np.concatenate([part.further[name] for part in parts]) for name in parts[0].further},
    )


def ids_of(rows: Sequence[dict]) -> Iterable[tuple[int, int]]:
    """Return the category id and the image id of each row."""
    if isinstance(rows, PackedDetections):
        return zip(rows.category_ids.tolist(), rows.image_ids.tolist(), strict=True)
    return ((row['category_id'], row['image_id']) for row in rows)


class PackedResults(MutableMapping[int, Mapping[int, np.ndarray]]):
    """Results `{image id: {1-based class: rows [n, columns]}}`, kept as one array an image.

    Classes without rows are not kept.

    Args:
        packed: what other results keep (`packed.items()`): image ids with classes [c], ends [c] and rows [n, columns].
    """

    def __init__(self, packed: Iterable[tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]]] = ()) -> None:
        self.packed = dict(packed)

    def __setitem__(self, image_id: int, by_class: Mapping[int, np.ndarray]) -> None:
        filled = {cls: np.asarray(rows) for cls, rows in by_class.items() if len(rows)}
        rows = np.concatenate(list(filled.values())) if filled else np.zeros((0, 0), np.float32)
        ends = np.cumsum([len(of_class) for of_class in filled.values()], dtype=np.int32)
        self.packed[image_id] = np.array(list(filled), np.int32), ends, rows

    def __getitem__(self, image_id: int) -> dict[int, np.ndarray]:
        classes, ends, rows = self.packed[image_id]
        return dict(zip(classes.tolist(), np.split(rows, ends[:-1]), strict=False))

    def __delitem__(self, image_id: int) -> None:
        del self.packed[image_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)
