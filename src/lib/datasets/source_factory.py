"""The built-in sources, and the check of a dataset's name. Light to import: neither torch, cv2 nor an evaluator."""

import os

from ..utils.errors import UserError, did_you_mean
from .dataset.coco import COCO
from .dataset.coco_hp import COCOHP
from .dataset.kitti import KITTI
from .dataset.pascal import Pascal
from .source import BOXES, EXTREME_POINTS, JOINTS, SOLID_BOXES, Source

source_factory: dict[str, type[Source]] = {
    'coco': COCO,
    'coco_hp': COCOHP,
    'kitti': KITTI,
    'pascal': Pascal,
}

# What each task needs of annotations.
TASK_NEEDS = {
    'ctdet': (BOXES,),
    'exdet': (BOXES, EXTREME_POINTS),
    'ddd': (SOLID_BOXES,),
    'multi_pose': (BOXES, JOINTS),
}


def served_tasks(source: type[Source]) -> list[str]:
    """Return the names of the tasks whose needs a source meets."""
    return [task for task, needs in TASK_NEEDS.items() if set(needs) <= set(source.offers)]


def check_dataset_name(dataset: str, task: str) -> None:
    """Refuse the name of a dataset that is neither a built-in one that serves the task nor a folder of own data.

    Raises:
        UserError: the name is refused.
    """
    if dataset in source_factory:
        served = served_tasks(source_factory[dataset])
        if task not in served:
            raise UserError(f"dataset '{dataset}' serves {', '.join(served)}, not {task}")
    elif os.path.isdir(dataset):
        annotation_file(dataset)
    else:
        names = sorted(source_factory)
        raise UserError(
            f"dataset '{dataset}' is neither a built-in ({', '.join(names)}) nor a folder"
            + did_you_mean(dataset, names)
        )


def annotation_file(folder: str) -> str:
    """Return the file from which the classes of a folder of own data are read: train.json, or else val.json.

    Raises:
        UserError: the folder has neither.
    """
    files = [os.path.join(folder, 'annotations', f'{split}.json') for split in ('train', 'val')]
    for path in files:
        if os.path.exists(path):
            return path
    raise UserError(f"own data in '{folder}' needs '{files[0]}' and '{files[1]}' (COCO format)")
