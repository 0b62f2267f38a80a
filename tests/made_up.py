"""Made-up results of a dataset: its own objects moved, missed, called otherwise and doubled, and what is not there."""

import numpy as np

SCORE_OF = {'right': (5, 2), 'double': (2, 4), 'nothing': (1, 5)}  # of Beta distributions


def made_up_results(dataset, seed: int = 0) -> dict[int, dict[int, np.ndarray]]:
    """`{image id: {1-based class: rows [n, columns]}}`, drawn from the seed."""
    rng = np.random.default_rng(seed)
    results = {}
    for i in range(len(dataset)):
        objects, by_class = dataset.index.objects(i), {}

        def add(cls, box, kind, k, objects=objects, by_class=by_class):
            row = result_row(dataset, objects, k, box, rng.beta(*SCORE_OF[kind]), rng)
            by_class.setdefault(cls + 1, []).append(row)

        for k in np.flatnonzero(objects.valid & (objects.classes >= 0)):
            if rng.random() < 0.15:
                continue
            box, cls = objects.boxes[k].astype(float), int(objects.classes[k])
            side = np.tile(box[2:] - box[:2], 2)
            cls = int(rng.integers(dataset.num_classes)) if rng.random() < 0.15 else cls
            add(cls, box + rng.normal(0, 0.06, 4) * side, 'right', k)
            if rng.random() < 0.3:
                add(cls, box + rng.normal(0, 0.15, 4) * side, 'double', k)
        width, height = dataset.image_size(i)
        corner = rng.uniform(0, 0.7, 2) * (width, height)
        add(int(rng.integers(dataset.num_classes)), [*corner, *(corner + (width / 5, height / 5))], 'nothing', None)
        results[int(dataset.index.image_ids[i])] = {cls: np.array(rows) for cls, rows in by_class.items()}
    return results


def result_row(dataset, objects, k, box, score, rng) -> np.ndarray:
    """A row as the task's detector gives it, of object k (None: of nothing)."""
    columns = dataset.result_columns()
    joints = 2 * (dataset.num_joints or 0)
    width = {'keypoints': 5 + joints, 'extreme_points': 13, 'dim': 13}
    row = np.zeros(next((width[name] for name in width if name in columns), 5))
    row[columns['box']], row[columns['score']] = box, score
    fields = {} if k is None else {name: values[k] for name, values in objects.fields.items()}
    if 'keypoints' in columns and fields:
        side = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        row[columns['keypoints']] = (fields['keypoints'][:, :2] + rng.normal(0, 0.04 * side, (joints // 2, 2))).ravel()
    if 'extreme_points' in columns and fields:
        row[columns['extreme_points']] = fields['extreme_points'].ravel()
    if 'dim' in columns:
        row[columns['dim']], row[columns['location']] = 1.5, (0, 1.5, 20)
        for name in fields.keys() & {'dim', 'location', 'alpha', 'rotation_y'}:
            row[columns[name]] = fields[name] * (1 + rng.normal(0, 0.03))
    return row
