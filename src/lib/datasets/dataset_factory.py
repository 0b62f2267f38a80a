"""Datasets: a source (where data lies) read by a sample (what a task learns from an image)."""

from functools import lru_cache

from ..tasks import TASKS, load_class
from .dataset.custom import Custom
from .sample.base import Sample
from .source_factory import check_dataset_name, source_factory

sample_factory: dict[str, type[Sample]] = {
    name: load_class('datasets.sample', name, task.sample) for name, task in TASKS.items()
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
    built_in = source_factory.get(dataset)
    source = built_in() if built_in else Custom(dataset, sample.choose_categories, TASKS[task].needs)

    class SourceSample(sample):  # type: ignore[valid-type, misc]  # a class is chosen at run time
        def __reduce__(self) -> tuple:
            state = {
                name: value for name, value in vars(self).items() if name != 'annotations'
            }  # which no loader reads
            return rebuild, (dataset, task, state)

    SourceSample.__name__ = SourceSample.__qualname__ = f'{type(source).__name__}_{task}'
    SourceSample.bind(source, task)
    return SourceSample


def rebuild(dataset: str, task: str, state: dict) -> Sample:
    """Make a dataset object in another process, from its names and its state."""
    cls = get_dataset(dataset, task)
    copy = cls.__new__(cls)
    copy.__dict__.update(state)
    return copy
