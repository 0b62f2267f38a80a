"""KITTI object detection, 3 classes."""

import os
from typing import TYPE_CHECKING

from ..categories import DROPPED, IGNORED_FOR_ALL, ignored_for
from ..source import SOLID_BOXES, Source
from .pascal import Pascal

if TYPE_CHECKING:
    from ...opts import Options

PEDESTRIAN, CAR, CYCLIST = range(3)


class KITTI(Source):
    """KITTI (`data/kitti`, made by convert_kitti_to_coco), by the official metric.

    `--kitti_split` chooses the division of the training frames; `--trainval` trains on all and runs on the test set.
    """

    offers = (SOLID_BOXES,)  # no plain boxes: a task must know of the kinds that are ignored
    metric = 'kitti'
    class_names = ['Pedestrian', 'Car', 'Cyclist']
    cat_ids = {
        1: PEDESTRIAN,
        2: CAR,
        3: CYCLIST,
        4: ignored_for(CAR),  # Van
        5: ignored_for(CAR),  # Truck
        6: ignored_for(PEDESTRIAN),  # Person_sitting
        7: DROPPED,  # Tram
        8: DROPPED,  # Misc
        9: IGNORED_FOR_ALL,  # DontCare
    }
    default_resolution = [384, 1280]
    mean, std = Pascal.mean, Pascal.std  # RGB order on BGR images here too: the published models were trained so
    max_objs = 50

    def locate(self, opt: 'Options', split: str, variant: str = '') -> tuple[str, str]:
        """Return the paths of the annotation file and of the images folder of a split, as `Source.locate`."""
        root = os.path.join(opt.data_dir, 'kitti')
        name = f'{opt.kitti_split}_{split}'
        if split == 'test' or (opt.trainval and split == 'train'):
            name = 'test' if split == 'test' else 'trainval'
        images = 'test' if split == 'test' else 'trainval'
        return os.path.join(root, 'annotations', f'kitti_{name}.json'), os.path.join(root, 'images', images)

    def label_folder(self, opt: 'Options') -> str | None:
        """Return the folder of KITTI's label files, if it is there."""
        folder = os.path.join(opt.data_dir, 'kitti', 'training', 'label_2')
        return folder if os.path.isdir(folder) else None
