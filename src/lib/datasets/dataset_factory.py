"""Datasets: a source (where data comes from) mixed with a sample (what a task learns from an image)."""

import os
from functools import lru_cache

from torch.utils.data import Dataset

from ..utils.errors import UserError, did_you_mean
from .dataset.coco import COCO
from .dataset.coco_hp import COCOHP
from .dataset.custom import annotation_file, custom_source
from .dataset.kitti import KITTI
from .dataset.pascal import Pascal
from .sample.ctdet import CtdetSample
from .sample.ddd import DddSample
from .sample.exdet import ExdetSample
from .sample.multi_pose import MultiPoseSample

source_factory = {
    'coco': COCO,
    'coco_hp': COCOHP,
    'kitti': KITTI,
    'pascal': Pascal,
}
sample_factory = {
    'ctdet': CtdetSample,
    'ddd': DddSample,
    'exdet': ExdetSample,
    'multi_pose': MultiPoseSample,
}


@lru_cache(maxsize=16)
def get_dataset(dataset: str, task: str) -> type:
    """The dataset class of a built-in name, or of a folder of own data, for a task.

    Returns:
        A class; `class(opt, split)` with split 'train', 'val' or 'test' is a torch dataset that spawned worker
        processes can unpickle.

    Raises:
        UserError: there is no such dataset, or it does not serve the task.
    """
    check_dataset_name(dataset, task)
    source = source_factory[dataset] if dataset in source_factory else custom_source(dataset, task)
    sample = sample_factory[task]

    class SourceSample(sample, source):
        def __reduce__(self):
            return rebuild, (dataset, task, self.__dict__)

    SourceSample.__name__ = SourceSample.__qualname__ = f'{source.__name__}_{task}'
    return SourceSample


def rebuild(dataset: str, task: str, state: dict) -> Dataset:
    """A dataset object in another process, from its names and its state."""
    cls = get_dataset(dataset, task)
    copy = cls.__new__(cls)
    copy.__dict__.update(state)
    return copy


def check_dataset_name(dataset: str, task: str) -> None:
    """Refuse a name that is neither a built-in that serves the task nor a folder of own data."""
    if dataset in source_factory:
        served = source_factory[dataset].tasks
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


def datasets_for(task: str) -> list[str]:
    """Names of the built-in datasets that serve a task."""
    return [name for name, source in source_factory.items() if task in source.tasks]
