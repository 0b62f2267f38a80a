"""The trainer of each task."""

from .ctdet import CtdetTrainer
from .exdet import ExdetTrainer

train_factory = {
    'ctdet': CtdetTrainer,
    'exdet': ExdetTrainer,
}
