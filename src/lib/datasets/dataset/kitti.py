"""KITTI object detection, 3 classes."""

import os
from argparse import Namespace

from ..evaluation.kitti_eval import CLASSES, figure_names
from ..source import Source
from .pascal import Pascal

# Kinds that are no class of their own. Where they stand, certain classes are neither right nor wrong.
IGNORED_FOR_ALL, IGNORED_FOR_PEDESTRIAN, IGNORED_FOR_CAR, DROPPED = -1, -2, -3, -99


class KITTI(Source):
    """KITTI (`data/kitti`, made by convert_kitti_to_coco), by the official metric.

    `--kitti_split` chooses the division of the training frames; `--trainval` trains on all and runs on the test set.
    """

    tasks = ('ddd',)
    class_names = ['Pedestrian', 'Car', 'Cyclist']
    cat_ids = {
        1: 0,
        2: 1,
        3: 2,
        4: IGNORED_FOR_CAR,  # Van
        5: IGNORED_FOR_CAR,  # Truck
        6: IGNORED_FOR_PEDESTRIAN,  # Person_sitting
        7: DROPPED,  # Tram
        8: DROPPED,  # Misc
        9: IGNORED_FOR_ALL,  # DontCare
    }
    default_resolution = [384, 1280]
    mean, std = Pascal.mean, Pascal.std  # RGB order on BGR images here too: the published models were trained so
    max_objs = 50
    metrics = figure_names(CLASSES)
    main_metric = 'car_3d_moderate_AP40'

    @classmethod
    def locate(cls, opt: Namespace, split: str) -> tuple[str, str]:
        root = os.path.join(opt.data_dir, 'kitti')
        name = f'{opt.kitti_split}_{split}'
        if split == 'test' or (opt.trainval and split == 'train'):
            name = 'test' if split == 'test' else 'trainval'
        images = 'test' if split == 'test' else 'trainval'
        return os.path.join(root, 'annotations', f'kitti_{name}.json'), os.path.join(root, 'images', images)

    def label_folder(self) -> str | None:
        folder = os.path.join(self.opt.data_dir, 'kitti', 'training', 'label_2')
        return folder if os.path.isdir(folder) else None
