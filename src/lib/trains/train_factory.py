"""The trainer of each task."""

from .ctdet import CtdetTrainer

train_factory = {
    'ctdet': CtdetTrainer,
}
