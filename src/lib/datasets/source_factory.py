"""The built-in sources, and the check of a dataset's name. Light to import: neither torch, cv2 nor an evaluator."""

import os

from ..tasks import TASKS
from ..utils.errors import UserError, did_you_mean
from .dataset.coco import COCO
from .dataset.coco_hp import COCOHP
from .dataset.kitti import KITTI
from .dataset.pascal import Pascal
from .source import Source

source_factory: dict[str, type[Source]] = {
    'coco': COCO,
    'coco_hp': COCOHP,
    'kitti': KITTI,
    'pascal': Pascal,
}


def serves(source: type[Source], task: str) -> bool:
    """Return whether the annotations of a source hold all that a task needs."""
    return set(TASKS[task].needs) <= set(source.offers)


def datasets_for(task: str) -> list[str]:
    """Return the names of the built-in datasets that serve a task."""
    return [name for name, source in source_factory.items() if serves(source, task)]


def check_dataset_name(dataset: str, task: str) -> None:
    """Refuse the name of a dataset that is neither a built-in one that serves the task nor a folder of own data.

    Raises:
        UserError: the name is refused.
    """
    if dataset in source_factory:
        source = source_factory[dataset]
        if not serves(source, task):
            served = [name for name in TASKS if serves(source, name)]
            raise UserError(f"dataset '{dataset}' serves {', '.join(served)}, not {task}")
    elif os.path.isdir(dataset):
        from .dataset.formats import open_folder

        open_folder(dataset)
    elif os.path.isfile(dataset):
        folder = os.path.dirname(dataset) or '.'
        raise UserError(
            f"dataset '{dataset}' is a file: give the folder that holds it and the images, such as '{folder}'"
        )
    else:
        names = sorted(source_factory)
        raise UserError(
            f"dataset '{dataset}' is neither a built-in ({', '.join(names)}) nor a folder"
            + did_you_mean(dataset, names)
        )


def is_divided(dataset: str) -> bool:
    """Return whether a dataset says itself which images validate; all but folders of own data do."""
    if dataset in source_factory or not os.path.isdir(dataset):
        return True
    from .dataset.formats import open_folder

    return open_folder(dataset).divides()
