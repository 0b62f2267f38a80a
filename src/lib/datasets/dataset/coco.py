"""COCO 2017, 80 classes."""

import os
from typing import TYPE_CHECKING

from ..source import BOXES, EXTREME_POINTS, Source

if TYPE_CHECKING:
    from ...opts import Options

# fmt: off
COCO_NAMES = [
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat', 'traffic light',
    'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep', 'cow',
    'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella', 'handbag', 'tie', 'suitcase', 'frisbee',
    'skis', 'snowboard', 'sports ball', 'kite', 'baseball bat', 'baseball glove', 'skateboard', 'surfboard',
    'tennis racket', 'bottle', 'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple',
    'sandwich', 'orange', 'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch',
    'potted plant', 'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone',
    'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors', 'teddy bear',
    'hair drier', 'toothbrush',
]
UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
# fmt: on


class COCO(Source):
    """COCO 2017 (`data/coco`). `--trainval` tests on test-dev.

    The annotations with extreme points lie in files of their own, the variant `_extreme`.
    """

    offers = (BOXES, EXTREME_POINTS)
    annotations = 'instances'
    class_names = COCO_NAMES
    cat_ids = {category: i for i, category in enumerate(sorted(set(range(1, 91)) - UNUSED_IDS))}

    def locate(self, opt: 'Options', split: str, variant: str = '') -> tuple[str, str]:
        """Return the paths of the annotation file and of the images folder of a split, as `Source.locate`."""
        root = os.path.join(opt.data_dir, 'coco')
        name = f'{self.annotations}{variant}_{split}2017.json'
        if split == 'test':
            name = 'image_info_test-dev2017.json'
        return os.path.join(root, 'annotations', name), os.path.join(root, f'{split}2017')
