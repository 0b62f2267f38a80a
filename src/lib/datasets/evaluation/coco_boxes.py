"""COCO's box metric of a dataset's results."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...utils.files import write_json_list
from ...utils.words import plural
from .coco_eval import BOX_METRICS, evaluate_coco
from .metric import Columns, Metric, Results
from .packed import PackedDetections, join

logger = logging.getLogger(__name__)


class CocoBoxes(Metric):
    """AP and AR of boxes at IoU .5 to .95, as COCO defines them; results are COCO's `results.json`."""

    needs: ClassVar[tuple[str, ...]] = ('box', 'score')
    names: tuple[str, ...] = BOX_METRICS
    main = 'AP'

    def save(self, results: Results, folder: Path) -> PackedDetections:
        """Write the result rows [n, columns] as COCO's `results.json`; returns its list of detections."""
        detections = coco_results(results, self.cat_ids, self.columns)
        path = folder / 'results.json'
        write_json_list(path, detections)
        logger.info('%s written to %s', plural(len(detections), 'detection'), path)
        return detections

    def score(self, ground_truth: dict, saved: Sequence[dict]) -> dict[str, float]:
        """Score detections by COCO's box metric: `{metric: value}`."""
        return evaluate_coco(learnt_truth(ground_truth, self.cat_ids), saved, 'bbox')


def learnt_truth(ground_truth: dict, cat_ids: Mapping[int, int]) -> dict:
    """Return a COCO dict without the categories that are no classes of their own (`cat_ids` below 0)."""
    learnt = {category for category, cls in cat_ids.items() if cls >= 0}
    return ground_truth | {
        'annotations': [row for row in ground_truth['annotations'] if row['category_id'] in learnt],
        'categories': [row for row in ground_truth['categories'] if row['id'] in learnt],
    }


def coco_results(results: Results, cat_ids: Mapping[int, int], columns: Columns) -> PackedDetections:
    """Convert results to COCO's list of detections.

    Args:
        results: `{image id: {1-based class: rows [n, columns]}}`; left untouched.
        cat_ids: category id -> class.
        columns: the layout of the rows, with `box` and `score`.

    Returns:
        `{image_id, category_id, bbox [x, y, w, h], score}` for each row, with every further column under its name:
        `keypoints` as x, y, 1 of each joint. Scores are kept in full, all else is rounded to 2 decimals.
    """
    category_of = {cls: category for category, cls in cat_ids.items() if cls >= 0}
    further = [name for name in columns if name not in ('box', 'score')]
    parts: list[PackedDetections] = []
    for image_id, by_class in results.items():
        filled = {cls: np.asarray(rows, np.float64) for cls, rows in by_class.items() if len(rows)}
        if not filled:
            continue
        rows = np.concatenate(list(filled.values()))  # [n, columns]
        classes = np.repeat([category_of[int(cls) - 1] for cls in filled], [len(each) for each in filled.values()])
        boxes = rows[:, columns['box']]  # [n, 4]
        boxes = np.round(np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]), 2)
        values = {name: np.round(rows[:, columns[name]], 2) for name in further}
        if 'keypoints' in values:
            places = values['keypoints'].reshape(len(rows), -1, 2)  # [n, J, 2]
            values['keypoints'] = np.insert(places, 2, 1, axis=2).reshape(len(rows), -1)  # [n, 3J]
        image_ids = np.full(len(rows), int(image_id), np.int64)
        parts.append(PackedDetections(image_ids, classes, boxes, rows[:, columns['score']].copy(), values))
    return join(parts)
