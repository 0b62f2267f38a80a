"""The detector of each task."""

from .ctdet import CtdetDetector
from .ddd import DddDetector
from .exdet import ExdetDetector
from .multi_pose import MultiPoseDetector

detector_factory = {
    'ctdet': CtdetDetector,
    'ddd': DddDetector,
    'exdet': ExdetDetector,
    'multi_pose': MultiPoseDetector,
}
