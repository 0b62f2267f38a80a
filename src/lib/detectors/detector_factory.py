"""The detector of each task."""

from .ctdet import CtdetDetector
from .exdet import ExdetDetector
from .multi_pose import MultiPoseDetector

detector_factory = {
    'ctdet': CtdetDetector,
    'exdet': ExdetDetector,
    'multi_pose': MultiPoseDetector,
}
