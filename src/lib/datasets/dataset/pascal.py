"""Pascal VOC 07 + 12, 20 classes."""

import os
from typing import TYPE_CHECKING

import numpy as np

from ..source import BOXES, Source

if TYPE_CHECKING:
    from ...opts import Options
    from ..index import AnnotationIndex

# fmt: off
PASCAL_NAMES = [
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow', 'diningtable', 'dog',
    'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
]
# fmt: on


class Pascal(Source):
    """Pascal VOC (`data/voc`): trains on trainval 2007 + 2012, tests on test 2007, by VOC's mAP."""

    offers = (BOXES,)
    metric = 'voc'
    class_names = PASCAL_NAMES
    cat_ids = {i + 1: i for i in range(20)}
    default_resolution = [384, 384]
    # ImageNet's means in RGB order, applied to BGR images: the published models were trained so.
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 1, 3)
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 1, 3)
    max_objs = 50

    def locate(self, opt: 'Options', split: str, variant: str = '') -> tuple[str, str]:
        """Return the paths of the annotation file and of the images folder of a split, as `Source.locate`."""
        root = os.path.join(opt.data_dir, 'voc')
        name = 'pascal_trainval0712.json' if split == 'train' else 'pascal_test2007.json'
        return os.path.join(root, 'annotations', name), os.path.join(root, 'images')

    def arrange(self, index: 'AnnotationIndex', split: str) -> 'AnnotationIndex':
        """Sort the images by id."""
        return index.select(np.argsort(index.image_ids, kind='stable'))
