"""The trainer of each task."""

from .ctdet import CtdetTrainer
from .exdet import ExdetTrainer
from .multi_pose import MultiPoseTrainer

train_factory = {
    'ctdet': CtdetTrainer,
    'exdet': ExdetTrainer,
    'multi_pose': MultiPoseTrainer,
}
