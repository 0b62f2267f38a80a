"""The trainer of each task."""

from ..tasks import TASKS, load_class
from .base_trainer import BaseTrainer

train_factory: dict[str, type[BaseTrainer]] = {
    name: load_class('trains', name, task.trainer) for name, task in TASKS.items()
}
