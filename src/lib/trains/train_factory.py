"""The trainer of each task."""

from .ctdet import CtdetTrainer
from .ddd import DddTrainer
from .exdet import ExdetTrainer
from .multi_pose import MultiPoseTrainer

train_factory = {
    'ctdet': CtdetTrainer,
    'ddd': DddTrainer,
    'exdet': ExdetTrainer,
    'multi_pose': MultiPoseTrainer,
}
