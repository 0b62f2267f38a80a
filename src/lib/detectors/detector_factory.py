"""The detector of each task."""

from .ctdet import CtdetDetector
from .exdet import ExdetDetector

detector_factory = {
    'ctdet': CtdetDetector,
    'exdet': ExdetDetector,
}
