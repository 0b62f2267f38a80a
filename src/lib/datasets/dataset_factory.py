"""Datasets: a source (where data lies) read by a sample (what a task learns from an image)."""

from functools import lru_cache

from .dataset.custom import Custom
from .sample.base import Sample
from .sample.ctdet import CtdetSample
from .sample.ddd import DddSample
from .sample.exdet import ExdetSample
from .sample.multi_pose import MultiPoseSample
from .source_factory import check_dataset_name, source_factory

sample_factory: dict[str, type[Sample]] = {
    'ctdet': CtdetSample,
    'ddd': DddSample,
    'exdet': ExdetSample,
    'multi_pose': MultiPoseSample,
}


@lru_cache(maxsize=16)
def get_dataset(dataset: str, task: str) -> type[Sample]:
    """Return the dataset class of a built-in name, or of a folder of own data, for a task.

    Args:
        dataset: a name of `source_factory`, or a folder.
        task: a name of `sample_factory`.

    Returns:
        A class with the facts of its source (see `TaskDataset`). `class(opt, split)` with split 'train', 'val' or
        'test' is a torch dataset that spawned worker processes can unpickle.

    Raises:
        UserError: there is no such dataset, or it does not serve the task.
    """
    check_dataset_name(dataset, task)
    sample = sample_factory[task]
    if dataset in source_factory:
        source = source_factory[dataset]()
    else:
        source = Custom(dataset, sample.choose_categories)

    def reduce(self: Sample) -> tuple:
        return rebuild, (dataset, task, self.__dict__)

    cls = type(f'{type(source).__name__}_{task}', (sample,), {'__reduce__': reduce, '__doc__': sample.__doc__})
    cls.bind(source, task)
    return cls


def rebuild(dataset: str, task: str, state: dict) -> Sample:
    """Make a dataset object in another process, from its names and its state."""
    cls = get_dataset(dataset, task)
    copy = cls.__new__(cls)
    copy.__dict__.update(state)
    return copy
