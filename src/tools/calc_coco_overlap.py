"""Count the objects that a centre-point detector cannot separate: pairs of one class and image that share a centre
cell at stride 4, and pairs whose boxes have an IoU over 0.5 (appendix of the paper). Pixels are the image's own.
"""

import argparse
from collections import defaultdict

import numpy as np

from centernet.datasets.coco_file import read_coco
from centernet.datasets.evaluation.coco_eval import usable_rows
from centernet.utils.cli import OneLineParser, run_cli, track
from centernet.utils.errors import UserError

STRIDE = 4
IOU = 0.5


def count_pairs(coco: dict) -> tuple[int, int, int]:
    """Count the pairs of a COCO-format object, as `read_coco` returns it.

    Returns:
        Numbers of objects, of pairs that share a centre cell, and of pairs with a high IoU.
    """
    groups = defaultdict(list)
    for row in usable_rows(coco, coco['annotations'], {'bbox': 4}, 'annotations'):
        groups[row['image_id'], row['category_id']].append(row['bbox'])
    num_objects = num_colliding = num_overlapping = 0
    for boxes in track(groups.values(), 'overlaps', len(groups)):
        boxes = np.array(boxes, dtype=np.float64)  # [N, 4] x y w h
        first, second = np.triu_indices(len(boxes), k=1)
        cells = np.floor((boxes[:, :2] + boxes[:, 2:] / 2) / STRIDE)  # [N, 2]
        num_objects += len(boxes)
        num_colliding += int((cells[first] == cells[second]).all(1).sum())
        num_overlapping += int((iou(boxes[first], boxes[second]) > IOU).sum())
    return num_objects, num_colliding, num_overlapping


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of P pairs of boxes [P, 4] x y w h: [P]."""
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    shared = (high - low).clip(0).prod(1)
    union = a[:, 2:].prod(1) + b[:, 2:].prod(1) - shared
    return shared / np.maximum(union, 1e-9)


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('annotations', help='annotation file in COCO format')
    args = parser.parse_args()
    num_objects, num_colliding, num_overlapping = count_pairs(read_coco(args.annotations))
    if not num_objects:
        raise UserError(f"'{args.annotations}' has no usable object")
    print(f'{num_objects} objects')
    print(f'{num_colliding} pairs of a class share a centre cell at stride {STRIDE}')
    print(f'{num_overlapping} pairs of a class have an IoU over {IOU}')


if __name__ == '__main__':
    run_cli(main)
